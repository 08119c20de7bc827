//! `weft request`: asks a proxy of this host. In an image without a shell it stands for curl, and the hook before a stop that
//! Istio's injector writes runs it. Arguments are those of `pilot-agent request`.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode, Uri};

use super::local;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Ask a proxy of this host, at its admin console or another port.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// GET or POST.
    method: Method,

    /// Page, with or without a slash before it.
    path: String,

    /// Port of the page: 15000 is the admin console, 15020 the agent.
    #[arg(long, default_value_t = 15000, value_name = "PORT")]
    debug_port: u16,
}

const EXAMPLES: &str = "\
Examples:
  weft request GET config_dump
  weft request POST 'logging?http=debug'
  weft request --debug-port 15020 POST drain

Exit status: 0 the answer was printed, also that there is no such page (404), as with Istio; 1 there was none, or one of
another failure.";

/// Asks, and prints the answer as it is.
pub(super) fn request(arguments: &Arguments) -> ExitCode {
    let Arguments { method, path, debug_port } = arguments;
    let url = format!("http://localhost:{debug_port}/{}", path.trim_start_matches('/'));
    let url: Uri = match url.parse() {
        Ok(url) => url,
        Err(error) => return super::fail(&format!("`{path}` is no path: {error}")),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return super::fail(&error),
    };
    let answered = match runtime.block_on(local::ask(method.clone(), &url, TIMEOUT)) {
        Ok(answered) => answered,
        Err(why) => return super::fail(&format!("{url}: {why}")),
    };
    match std::str::from_utf8(&answered.body) {
        Ok(text) if std::io::stdout().is_terminal() => super::print_text(text),
        // A program gets what was answered.
        _ => super::print(&answered.body),
    }
    let status = answered.status;
    // As with Istio: a page that is not there is told by its text.
    if (status.is_client_error() || status.is_server_error()) && status != StatusCode::NOT_FOUND {
        return super::fail(&format!("{url}: {status}"));
    }
    ExitCode::SUCCESS
}
