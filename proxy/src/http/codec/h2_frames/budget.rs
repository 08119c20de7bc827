//! What a peer may send that costs us work and carries nothing.

use config::Limits;

use super::{CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, RST_STREAM};

/// Control frames that one useful frame earns: Envoy's `max_inbound_window_update_frames_per_data_frame_sent`.
pub(super) const CONTROL_FRAMES_PER_USEFUL: u32 = 10;

/// Control frames that a second earns.
pub(super) const CONTROL_FRAMES_PER_SECOND: u32 = 100;

/// Heads of answers that a request earns: one, trailers, and some that inform.
pub(super) const ANSWER_HEADS_PER_REQUEST: u32 = 10;

/// Resets that a second earns.
pub(super) const RESET_FRAMES_PER_SECOND: u32 = 50;

/// Which limit a peer has exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    /// Frames without payload of their own.
    Control,
    /// Resets of streams.
    Reset,
    /// Frames that carry nothing and end nothing.
    Empty,
    /// Heads of answers that nobody asked for.
    Answer,
    /// What the library would misread.
    Misread,
}

impl Flood {
    /// The limit's name in [`Limits`].
    pub(crate) fn limit(self) -> &'static str {
        match self {
            Flood::Control => "http2_control_frames_max",
            Flood::Reset => "http2_reset_frames_max",
            Flood::Empty => "http2_empty_frames_max",
            Flood::Answer => "http2_answer_heads_max",
            Flood::Misread => "http2_library",
        }
    }
}

/// What a peer may still send.
#[derive(Debug)]
pub(super) struct Budget {
    control: u32,
    resets: u32,
    empty: u32,
    control_max: u32,
    resets_max: u32,
    empty_max: u32,
    /// For upstreams only.
    pub(super) answers: Option<u32>,
    pub(super) answers_max: u32,
}

impl Budget {
    pub(super) fn of(limits: &Limits) -> Budget {
        let whole = |limit| u32::try_from(limit).unwrap_or(u32::MAX);
        let (control, resets, empty) = (
            whole(limits.http2_control_frames_max),
            whole(limits.http2_reset_frames_max),
            whole(limits.http2_empty_frames_max),
        );
        Budget {
            control,
            resets,
            empty,
            control_max: control,
            resets_max: resets,
            empty_max: empty,
            answers: None,
            answers_max: whole(limits.http2_answer_heads_max),
        }
    }

    pub(super) fn earn(&mut self, control: u32, resets: u32, empty: u32) {
        self.control = self.control.saturating_add(control).min(self.control_max);
        self.resets = self.resets.saturating_add(resets).min(self.resets_max);
        self.empty = self.empty.saturating_add(empty).min(self.empty_max);
    }

    /// A request went to an upstream.
    pub(super) fn asked(&mut self) {
        let more = |answers: u32| answers.saturating_add(ANSWER_HEADS_PER_REQUEST).min(self.answers_max);
        self.answers = self.answers.map(more);
    }

    pub(super) fn passed(&mut self, seconds: u32) {
        self.earn(
            CONTROL_FRAMES_PER_SECOND.saturating_mul(seconds),
            RESET_FRAMES_PER_SECOND.saturating_mul(seconds),
            seconds,
        );
    }

    pub(super) fn spend(&mut self, frame: Frame) -> Result<(), Flood> {
        let (left, flood) = match frame.kind {
            DATA if frame.length == 0 && !frame.has(END_STREAM) => (&mut self.empty, Flood::Empty),
            HEADERS | CONTINUATION if frame.length == 0 && !frame.has(END_HEADERS) => {
                (&mut self.empty, Flood::Empty)
            }
            HEADERS if self.answers == Some(0) => return Err(Flood::Answer),
            DATA | HEADERS | CONTINUATION => {
                if frame.kind == HEADERS {
                    self.answers = self.answers.map(|answers| answers.saturating_sub(1));
                }
                self.earn(CONTROL_FRAMES_PER_USEFUL, 0, 1);
                return Ok(());
            }
            RST_STREAM => (&mut self.resets, Flood::Reset),
            _ => (&mut self.control, Flood::Control),
        };
        *left = left.checked_sub(1).ok_or(flood)?;
        Ok(())
    }
}
