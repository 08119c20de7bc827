//! The option that sets limits, for the commands that keep them.

use config::Limits;
use config::limits::Entry;

/// Limits that are not the default.
#[derive(Debug, clap::Args)]
pub(super) struct LimitArguments {
    /// Another value for a limit of the process, as NAME=VALUE; may be given several times. `--limit help` lists them.
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = parse_limit)]
    limits: Vec<(String, u64)>,
}

impl LimitArguments {
    /// All limits.
    pub(super) fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        for (name, value) in &self.limits {
            // The argument's parser has set it once already.
            let _ = limits.set(name, *value);
        }
        limits
    }
}

/// Parses `NAME=VALUE`.
fn parse_limit(text: &str) -> Result<(String, u64), String> {
    if text == "help" {
        let lines = Limits::default().entries().into_iter();
        let lines: Vec<String> =
            lines.map(|Entry { name, what, value }| format!("  {name}={value}\n      {what}")).collect();
        return Err(format!("the limits and their defaults:\n{}", lines.join("\n")));
    }
    let (name, value) = text.split_once('=').ok_or("write it like head_time_max_ms=10000")?;
    let value = value.parse().map_err(|_| format!("`{value}` is not a whole number"))?;
    Limits::default().set(name, value).map_err(|bad| bad.to_string())?;
    Ok((name.to_owned(), value))
}
