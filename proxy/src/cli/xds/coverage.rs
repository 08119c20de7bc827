//! `weft xds coverage`: what of each message is honoured, from the tables by which messages are taken apart.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};
use xds_client::convert::{Field, Message, Standing, coverage as tables};

use super::super::{counted, print};

/// Say what of each message is honoured, harmless, not run yet, or refused.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Only messages whose name holds this, such as `Listener`, or messages with such a field.
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// How it is shown.
    #[arg(long, default_value = "human", value_name = "FORM")]
    output: Output,
}

const EXAMPLES: &str = "\
honoured: it is done, or those of its values are refused that cannot be. harmless: weft would do nothing else without it.
not run: it is read and has no effect yet; what it guards is closed. refused: a resource that sets it is refused alone.

Examples:
  weft xds coverage
  weft xds coverage RouteAction
  weft xds coverage hash_policy
  weft xds coverage --output json

Exit status: 0, or 1 when no message and no field has the name.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A paragraph a message.
    Human,
    /// One JSON array.
    Json,
}

/// Prints the tables.
pub(super) fn coverage(arguments: &Arguments) -> ExitCode {
    let wanted = |message: &Message| {
        arguments.name.as_deref().is_none_or(|name| {
            message.name.contains(name) || message.fields.iter().any(|field| field.name == name)
        })
    };
    let mut messages: Vec<Message> = tables().into_iter().filter(wanted).collect();
    messages.sort_by_key(|message| message.name);
    if messages.is_empty() {
        return super::super::fail(&"no message and no field has that name");
    }
    match arguments.output {
        Output::Human => print(human(&messages)),
        Output::Json => print(format!("{:#}\n", messages.iter().map(message).collect::<Value>())),
    }
    ExitCode::SUCCESS
}

fn human(messages: &[Message]) -> String {
    let mut text = String::new();
    for Message { name, fields } in messages {
        let _ = writeln!(text, "{name}");
        let lists = [("honoured", Standing::Honoured), ("refused", Standing::Refused)];
        for (word, standing) in lists {
            let names: Vec<&str> =
                fields.iter().filter(|field| field.standing == standing).map(|field| field.name).collect();
            if !names.is_empty() {
                let _ = writeln!(text, "  {word:9} {}", names.join(", "));
            }
        }
        for field in *fields {
            if let Standing::Harmless(why) | Standing::NotRun(why) = field.standing {
                let _ = writeln!(text, "  {:9} {}: {why}", word(field), field.name);
            }
        }
        text.push('\n');
    }
    let count = |wanted: &str| {
        messages.iter().flat_map(|message| message.fields).filter(|field| word(field) == wanted).count()
    };
    let _ = writeln!(
        text,
        "{}: {} honoured, {} harmless, {} not run, {} refused",
        counted(messages.len(), "message"),
        count("honoured"),
        count("harmless"),
        count("not run"),
        count("refused"),
    );
    text
}

fn word(field: &Field) -> &'static str {
    match field.standing {
        Standing::Honoured => "honoured",
        Standing::Harmless(_) => "harmless",
        Standing::NotRun(_) => "not run",
        Standing::Refused => "refused",
    }
}

fn message(message: &Message) -> Value {
    let field = |field: &Field| {
        let why = match field.standing {
            Standing::Harmless(why) | Standing::NotRun(why) => Some(why),
            Standing::Honoured | Standing::Refused => None,
        };
        json!({ "field": field.name, "standing": word(field), "why": why })
    };
    json!({ "message": message.name, "fields": message.fields.iter().map(field).collect::<Value>() })
}
