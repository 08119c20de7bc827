//! `weft wait`: until the proxy is ready. Istio's injector has the kubelet run it, so that the application starts after the
//! proxy (`holdApplicationUntilProxyStarts`). Flags and defaults are those of `pilot-agent wait`.

use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode, Uri};

use super::local;

/// Wait until the proxy is ready.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// How long to wait at most.
    #[arg(long = "timeoutSeconds", alias = "timeout-seconds", default_value_t = 60, value_name = "SECONDS")]
    timeout_s: u32,

    /// How long one answer may take.
    #[arg(
        long = "requestTimeoutMillis",
        alias = "request-timeout-millis",
        default_value_t = 500,
        value_name = "MILLISECONDS"
    )]
    request_timeout_ms: u32,

    /// Pause before each question.
    #[arg(
        long = "periodMillis",
        alias = "period-millis",
        default_value_t = 500,
        value_name = "MILLISECONDS"
    )]
    period_ms: u32,

    /// What is asked.
    #[arg(long, default_value = "http://localhost:15021/healthz/ready")]
    url: Uri,
}

const EXAMPLES: &str = "\
Examples:
  weft wait
  weft wait --timeoutSeconds 10 --url http://localhost:15020/healthz/ready

Exit status: 0 it is ready, 1 it was not in time.";

/// Waits.
pub(super) fn wait(arguments: &Arguments) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return super::fail(&error),
    };
    let timeout = Duration::from_secs(arguments.timeout_s.into());
    let mut last = "it was not asked".to_owned();
    let ready = async {
        loop {
            tokio::time::sleep(Duration::from_millis(arguments.period_ms.into())).await;
            match is_ready(arguments).await {
                Ok(()) => return,
                Err(why) => {
                    tracing::debug!(why, "not ready yet");
                    last = why;
                }
            }
        }
    };
    match runtime.block_on(async { tokio::time::timeout(timeout, ready).await }) {
        Ok(()) => {
            tracing::info!("the proxy is ready");
            ExitCode::SUCCESS
        }
        Err(_) => {
            super::fail(&format!("the proxy was not ready within {timeout:?}: {}: {last}", arguments.url))
        }
    }
}

async fn is_ready(arguments: &Arguments) -> Result<(), String> {
    let timeout = Duration::from_millis(arguments.request_timeout_ms.into());
    let answered = Box::pin(local::ask(Method::GET, &arguments.url, timeout)).await?;
    if answered.status == StatusCode::OK {
        return Ok(());
    }
    Err(format!("{}: {}", answered.status, String::from_utf8_lossy(&answered.body).trim()))
}
