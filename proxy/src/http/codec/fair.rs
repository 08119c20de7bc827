//! Reads from one connection, but not for too long at a time.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Unread;
use super::h2_frames::Scanner;
use super::linger::Linger;
use crate::reads;
use crate::turn::Pause;

/// Bytes read before others get their turn. h2 reads frames for as long as the socket has any, while those who are to
/// take them wait: this bounds how many frames lie there meanwhile, and how long other connections wait. It is less than a turn
/// of a body has, for the smallest frames have nine bytes.
const TURN_BYTES: usize = 32 * 1024;

/// A stream of HTTP/2 frames that pauses until the tasks that were woken before have run and the event loop has looked at all
/// sockets: after [`TURN_BYTES`], and when all connections of the worker together have frames of as many streams as a turn has
/// tasks. Each stream has a task, which may write to a connection of its own or make one. Frames of one stream in a row wake one
/// task once; and one stream may have its frames read whatever others do.
pub(super) struct FairReader<T> {
    stream: T,
    unread: Rc<Unread>,
    /// Where frames begin in what was given to the reader.
    frames: Scanner,
    /// The stream of the last frame that had one.
    last: u32,
    /// Bytes of this turn, and whether it has any stream.
    read: usize,
    has_stream: bool,
    /// What was read and is for the next turns.
    held: Bytes,
    /// Until then nothing is read.
    pause: Option<Pause>,
    /// Bytes that were written since all was with the socket last: TLS has them.
    unflushed: usize,
    /// Those that the socket does not take.
    untaken: reads::Held,
    end: End,
}

/// How far the end of writing is.
#[derive(Debug)]
enum End {
    /// It has not come, or goes on; whether the other side is then waited for.
    Open { lingers: bool },
    /// The other side knows, and is waited for.
    Lingers(Linger),
}

impl<T> FairReader<T> {
    /// `preface` bytes come before the first frame (RFC 9113 section 3.4).
    pub(super) fn new(stream: T, preface: usize, unread: &Rc<Unread>) -> FairReader<T> {
        let (unread, frames, held) = (unread.clone(), Scanner::new(preface), Bytes::new());
        let untaken = reads::Held::default();
        FairReader {
            stream,
            unread,
            frames,
            last: 0,
            read: 0,
            has_stream: false,
            held,
            pause: None,
            unflushed: 0,
            untaken,
            end: End::Open { lingers: false },
        }
    }

    /// Of a client, which at the end is given time to read.
    pub(super) fn of_client(stream: T, preface: usize, unread: &Rc<Unread>) -> FairReader<T> {
        FairReader { end: End::Open { lingers: true }, ..FairReader::new(stream, preface, unread) }
    }

    fn begin(&mut self) {
        (self.read, self.has_stream) = (0, false);
    }

    /// How many of these bytes are for this turn.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let FairReader { unread, frames, last, has_stream, .. } = self;
        let taken = frames.scan_while(bytes, |frame, _| {
            if frame.stream == 0 || frame.stream == *last {
                return true;
            }
            let fits = !*has_stream || unread.turn().take();
            if fits {
                *has_stream = true;
                *last = frame.stream;
            }
            fits
        });
        self.read += taken;
        taken
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for FairReader<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if this.pause.as_ref().is_some_and(|pause| !pause.is_over()) {
            return Poll::Pending;
        }
        this.pause = None;
        if this.read < TURN_BYTES {
            if this.held.is_empty() {
                let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
                if polled.is_pending() {
                    this.begin();
                }
                ready!(polled)?;
                let new = buffer.filled().get(before..).unwrap_or_default();
                let taken = this.take(new);
                if taken == new.len() {
                    return Poll::Ready(Ok(()));
                }
                this.held = Bytes::copy_from_slice(new.get(taken..).unwrap_or_default());
                this.read = TURN_BYTES;
                buffer.set_filled(before + taken);
            } else {
                let held = this.held.slice(..this.held.len().min(buffer.remaining()));
                let taken = this.take(&held);
                if taken < held.len() {
                    this.read = TURN_BYTES;
                }
                buffer.put_slice(&this.held.split_to(taken));
            }
            // Nothing would be the end of the connection.
            if buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
        this.begin();
        this.pause = Some(Pause::begin(cx));
        Poll::Pending
    }
}

impl<T: AsyncWrite + Unpin> FairReader<T> {
    /// Ready when more may be written: TLS takes what its socket does not, which is no more than may be read of a connection at
    /// once.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed < reads::BYTES_MIN || self.unflushed < reads::bytes() {
            return Poll::Ready(Ok(()));
        }
        self.poll_flushed(cx)
    }

    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.unflushed = 0;
        }
        if self.unflushed != self.untaken.bytes() {
            self.untaken.set(self.unflushed);
        }
        flushed
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for FairReader<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(cx))?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.unflushed += written;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(cx))?;
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, buffers))?;
        self.unflushed += written;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flushed(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let End::Open { lingers } = this.end {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !lingers {
                return Poll::Ready(Ok(()));
            }
            this.end = End::Lingers(Linger::begin());
        }
        match &mut this.end {
            End::Lingers(linger) => linger.poll(&mut this.stream, cx).map(Ok),
            End::Open { .. } => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::task::LocalSet;

    use super::*;
    use crate::http::codec::stuck::Stuck;
    use crate::turn::TURN_TASKS;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("a short payload");
        [&[0, 0, length, kind, flags], &stream.to_be_bytes()[..], payload].concat()
    }

    fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        frame(0, flags, stream, payload)
    }

    /// What is read in each turn, in reads of this size.
    async fn turns(bytes: &[u8], size: usize) -> Vec<Vec<u8>> {
        let mut reader = FairReader::new(bytes, PREFACE.len(), &Unread::unbounded());
        let mut turns = vec![Vec::new()];
        let mut room = vec![0; size];
        loop {
            let mut buffer = ReadBuf::new(&mut room);
            match poll_fn(|cx| Poll::Ready(Pin::new(&mut reader).poll_read(cx, &mut buffer))).await {
                Poll::Ready(read) if buffer.filled().is_empty() => {
                    read.expect("it does not fail");
                    return turns;
                }
                Poll::Ready(_) => turns.last_mut().expect("a turn").extend_from_slice(buffer.filled()),
                Poll::Pending => {
                    tokio::task::yield_now().await;
                    turns.push(Vec::new());
                }
            }
        }
    }

    /// How many frames are in each turn, whatever the size of reads.
    async fn check(frames: &[Vec<u8>], expected: &[usize]) {
        let bytes = [PREFACE.to_vec(), frames.concat()].concat();
        for size in [1, 5, 8, 9, 10, 100, 1000, TURN_BYTES] {
            let turns = turns(&bytes, size).await;
            assert_eq!(turns.concat(), bytes, "reads of {size}");
            let mut scanner = Scanner::new(PREFACE.len());
            let counts = turns.iter().map(|turn| {
                let mut count = 0;
                scanner.scan_while(turn, |_, _| {
                    count += 1;
                    true
                });
                count
            });
            assert_eq!(counts.collect::<Vec<usize>>(), expected, "reads of {size}");
        }
    }

    fn streams(count: u32) -> impl Iterator<Item = u32> {
        (0..count).map(|stream| 2 * stream + 1)
    }

    #[tokio::test]
    async fn a_turn_has_frames_of_some_streams_only() {
        // One of its own, and those that all have together.
        let all = 1 + TURN_TASKS;
        let once = |count| streams(count).map(|stream| data(stream, 0, b"x")).collect::<Vec<_>>();
        check(&once(all), &[33]).await;
        check(&once(2 * all + 8), &[33, 33, 8]).await;
        let empty = streams(all + 1).map(|stream| data(stream, 1, b""));
        check(&empty.collect::<Vec<_>>(), &[33, 1]).await;
        let twice = streams(all + 1).flat_map(|stream| [data(stream, 0, b"xyz"), data(stream, 1, b"")]);
        check(&twice.collect::<Vec<_>>(), &[66, 2]).await;
    }

    #[tokio::test]
    async fn connections_share_a_turn_and_none_goes_without() {
        let unread = Unread::unbounded();
        let bytes: Vec<u8> = streams(1000).flat_map(|stream| data(stream, 0, b"x")).collect();
        let mut readers: Vec<_> = (0..10).map(|_| FairReader::new(&bytes[..], 0, &unread)).collect();
        let mut room = vec![0; bytes.len()];
        for turn in 0..5 {
            let mut counts = Vec::new();
            for reader in &mut readers {
                let mut buffer = ReadBuf::new(&mut room);
                // Whoever polls it meanwhile, its turn does not come sooner.
                for is_over in [false, true, true] {
                    let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut *reader).poll_read(cx, &mut buffer)));
                    assert_eq!(polled.await.is_pending(), is_over);
                }
                counts.push(buffer.filled().len() / data(1, 0, b"x").len());
            }
            tokio::task::yield_now().await;
            assert_eq!(counts.iter().sum::<usize>(), 10 + TURN_TASKS as usize, "turn {turn}: {counts:?}");
            assert!(counts.iter().all(|count| *count > 0), "turn {turn}: {counts:?}");
        }
    }

    #[tokio::test]
    async fn frames_of_one_stream_and_of_the_connection_are_bounded_by_their_bytes_only() {
        let many: Vec<Vec<u8>> = (0..1000).map(|_| data(1, 0, b"x")).collect();
        check(&many, &[1000]).await;
        let pinged = many.iter().flat_map(|data| [data.clone(), frame(6, 0, 0, &[0; 8])]);
        check(&pinged.collect::<Vec<_>>(), &[2000]).await;
    }

    #[tokio::test]
    async fn who_asks_meanwhile_has_his_turn_next() {
        let bytes: Vec<u8> = streams(3_000).flat_map(|stream| data(stream, 0, b"x")).collect();
        let (mut asked, mut asks) = UnixStream::pair().expect("a pair");
        let read = Rc::new(Cell::new(0));
        let local = LocalSet::new();
        let busy = local.spawn_local({
            let read = read.clone();
            async move {
                let mut reader = FairReader::new(&bytes[..], 0, &Unread::unbounded());
                let mut buffer = [0; 8 * 1024];
                while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                    read.set(read.get() + count);
                }
            }
        });
        let heard = local.spawn_local({
            let read = read.clone();
            async move {
                asks.write_all(b"x").await.expect("it is sent");
                asked.read_u8().await.expect("it comes");
                read.get() / data(1, 0, b"x").len()
            }
        });
        local.await;
        busy.await.expect("it ends");
        let heard = heard.await.expect("it ends");
        assert!(heard <= 3 * (1 + TURN_TASKS as usize), "{heard} frames came before");
    }

    #[tokio::test]
    async fn what_is_taken_and_not_written_is_bounded() {
        let mut stream = FairReader::new(Stuck::default(), 0, &Unread::unbounded());
        for _ in 0..100 {
            drop(poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_write(cx, &[0; 4000]))).await);
            let flushed = poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_flush(cx))).await;
            assert!(flushed.is_pending());
        }
        let FairReader { stream, untaken, .. } = stream;
        assert!((reads::BYTES_MAX..reads::BYTES_MAX + 4000).contains(&stream.taken), "{}", stream.taken);
        assert_eq!(untaken.bytes(), stream.taken);
    }
}
