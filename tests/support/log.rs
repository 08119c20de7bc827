//! Access logs as tests read them.

use std::path::{Path, PathBuf};

use crate::sides::Side;
use crate::{Mesh, eventually};

/// The fields of Istio's default format, in order.
pub const FIELDS: [&str; 24] = [
    "start_time",
    "method",
    "path",
    "protocol",
    "response_code",
    "response_flags",
    "response_code_details",
    "connection_termination_details",
    "upstream_transport_failure_reason",
    "bytes_received",
    "bytes_sent",
    "duration",
    "upstream_service_time",
    "x_forwarded_for",
    "user_agent",
    "request_id",
    "authority",
    "upstream_host",
    "upstream_cluster",
    "upstream_local_address",
    "downstream_local_address",
    "downstream_remote_address",
    "requested_server_name",
    "route_name",
];

/// One line in Istio's default format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line(Vec<String>);

impl Line {
    /// Takes a line apart; panics when it is not in the format.
    pub fn parse(line: &str) -> Line {
        let mut fields = Vec::new();
        let mut rest = line;
        while !rest.is_empty() {
            // The request line is three fields in one pair of quotes.
            let (field, after) = match rest.as_bytes()[0] {
                b'[' => rest[1..].split_once(']').expect("a closing bracket"),
                b'"' => rest[1..].split_once('"').expect("a closing quote"),
                _ => rest.split_at(rest.find(' ').unwrap_or(rest.len())),
            };
            if fields.len() == 1 {
                fields.extend(field.split(' ').map(str::to_owned));
            } else {
                fields.push(field.to_owned());
            }
            rest = after.strip_prefix(' ').unwrap_or(after);
        }
        assert_eq!(fields.len(), FIELDS.len(), "{line}");
        Line(fields)
    }

    /// A field by its name.
    pub fn field(&self, name: &str) -> &str {
        let at = FIELDS.iter().position(|field| *field == name);
        &self.0[at.unwrap_or_else(|| panic!("there is no field {name}"))]
    }

    /// Status, flags and details: how a request ended.
    pub fn ending(&self) -> String {
        let fields = ["response_code", "response_flags", "response_code_details"];
        fields.map(|name| self.field(name)).join(" ")
    }
}

/// An access log and how much of it was read.
#[derive(Debug)]
pub struct Log {
    file: PathBuf,
    read: usize,
}

impl Log {
    /// Where the access log of a mesh is written that [`Log::configure`] configured, by one side.
    pub fn of(mesh: &Mesh, side: Side<'_>) -> Log {
        Log { file: side.log(&file(mesh)), read: 0 }
    }

    /// Has `mesh` log in Istio's default format; `more` is the rest of its MeshConfig.
    pub fn configure(mesh: Mesh, more: &str) -> Mesh {
        let config = format!("accessLogFile: {}\n{more}", file(&mesh).display());
        mesh.with("mesh.yaml", &config)
    }

    /// Waits for the next line in the default format.
    pub async fn next(&mut self) -> Line {
        Line::parse(&self.next_text().await)
    }

    /// Waits for the next line in any format.
    pub async fn next_text(&mut self) -> String {
        let line = eventually("a line is logged", || async {
            let text = std::fs::read_to_string(&self.file).unwrap_or_default();
            let (line, _) = text.get(self.read..)?.split_once('\n')?;
            Some(line.to_owned())
        })
        .await;
        self.read += line.len() + 1;
        line
    }

    /// Lines written that were not read, as far as they are there.
    pub fn unread(&self) -> String {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        text.get(self.read..).unwrap_or_default().to_owned()
    }
}

fn file(mesh: &Mesh) -> PathBuf {
    let directory = mesh.file("logs");
    let made: &Path = &directory;
    std::fs::create_dir_all(made).expect("a directory for logs");
    directory.join("access.log")
}
