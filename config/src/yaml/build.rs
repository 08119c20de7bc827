//! The text of one document to its tree, within limits.
//!
//! The only file that knows the YAML parser. It sees events, so anchors, merge keys (`<<`, which `kubectl` honours),
//! duplicate keys and every limit are decided here.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Tag};

use super::limits::Limits;
use super::path::write_field;
use super::problem::{Problem, Problems};
use super::split::DocumentText;
use super::tree::{Entry, Node, Value};
use crate::finding::code;

/// A document that could be read.
#[derive(Debug)]
pub(crate) struct Built<'a> {
    /// What it holds; `None` when that is nothing.
    pub(crate) root: Option<Node<'a>>,
    /// What is wrong with it all the same: duplicate keys, tags.
    pub(crate) problems: Problems,
}

/// A document that could not be read to its end.
#[derive(Debug)]
pub(crate) struct Broken<'a> {
    /// Why.
    pub(crate) problem: Problem,
    /// The fields before the one inside which it broke, or after which. `None` where what was read before may have
    /// been meant to be something else, or is not all of its metadata.
    pub(crate) head: Option<Node<'a>>,
}

/// Stands for bytes that are not UTF-8: no character, though YAML allows it.
const NOT_UTF8: char = '\u{10ffff}';

/// The text of a file. Bytes of it that are not UTF-8 refuse the document that they are in.
pub fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let mut text = String::with_capacity(error.as_bytes().len());
        for chunk in error.as_bytes().utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend((!chunk.invalid().is_empty()).then_some(NOT_UTF8));
        }
        text
    })
}

/// Builds the tree of `document`.
pub(crate) fn build<'a>(document: &DocumentText<'a>, limits: &Limits) -> Result<Built<'a>, Box<Broken<'a>>> {
    let built = parse(document, limits);
    let Some(at) = document.text.find(NOT_UTF8) else { return built };
    let head = match built {
        Ok(built) => built.root,
        Err(broken) => broken.head,
    };
    let before = document.text.get(..at).unwrap_or_default().matches('\n').count();
    let problem = Problem {
        line: document.line.saturating_add(u32::try_from(before).unwrap_or(u32::MAX)),
        path: String::new(),
        code: code::MALFORMED_YAML,
        what: "there are bytes that are not UTF-8".to_owned(),
        remedy: "save the file as UTF-8".to_owned(),
    };
    let is_whole = |head: &Node<'_>| {
        let metadata = head.get("metadata");
        let names = [head.get("apiVersion"), head.get("kind"), metadata];
        !names.into_iter().flatten().any(|node| node.contains(NOT_UTF8))
    };
    Err(Box::new(Broken { problem, head: head.filter(is_whole) }))
}

fn parse<'a>(document: &DocumentText<'a>, limits: &Limits) -> Result<Built<'a>, Box<Broken<'a>>> {
    let mut builder = Builder::new(*document, *limits);
    let options = granit_parser::options! {
        flow_nesting_limit: limits.document_depth_max.saturating_add(1),
        block_nesting_limit: limits.document_depth_max.saturating_add(1),
    };
    if document.text.len() > limits.document_bytes_max {
        let problem = builder.past_limit(document.line, "document_bytes_max", limits.document_bytes_max);
        return Err(Box::new(Broken { problem, head: None }));
    }
    for next in Parser::new_from_str_with_options(document.text, options) {
        let outcome = match next {
            Ok((event, span)) => builder.event(event, builder.line(span.start.line())),
            Err(error) => Err(builder.malformed(&error)),
        };
        if let Err(problem) = outcome {
            return Err(Box::new(Broken { problem, head: builder.head() }));
        }
    }
    Ok(Built { root: builder.root, problems: builder.problems })
}

/// Entries of a mapping from which on duplicates are looked up in a set.
const ENTRIES_SCANNED_MAX: usize = 32;

struct Builder<'a> {
    document: DocumentText<'a>,
    limits: Limits,
    open: Vec<Frame<'a>>,
    root: Option<Node<'a>>,
    anchors: HashMap<usize, Node<'a>>,
    nodes: usize,
    alias_nodes: usize,
    problems: Problems,
}

/// A list or mapping that is not closed yet.
struct Frame<'a> {
    line: u32,
    anchor: usize,
    content: Content<'a>,
}

enum Content<'a> {
    Sequence(Vec<Node<'a>>),
    Mapping {
        entries: Vec<Entry<'a>>,
        key: Option<Key<'a>>,
        merged: Vec<Node<'a>>,
        seen: HashSet<Cow<'a, str>>,
    },
}

/// A key whose value has not come yet.
struct Key<'a> {
    text: Cow<'a, str>,
    line: u32,
    role: KeyRole,
}

#[derive(PartialEq)]
enum KeyRole {
    Entry,
    /// `<<`.
    Merge,
    /// Written before; its value is dropped.
    Duplicate,
}

impl<'a> Builder<'a> {
    fn new(document: DocumentText<'a>, limits: Limits) -> Self {
        Builder {
            document,
            limits,
            open: Vec::new(),
            root: None,
            anchors: HashMap::new(),
            nodes: 0,
            alias_nodes: 0,
            problems: Problems::new(limits.document_problems_max),
        }
    }

    /// The line of the file for a line of the document.
    fn line(&self, line: usize) -> u32 {
        self.document.line.saturating_add(u32::try_from(line.saturating_sub(1)).unwrap_or(u32::MAX))
    }

    fn event(&mut self, event: Event<'a>, line: u32) -> Result<(), Problem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !self.is_text(tag.as_deref(), line)?;
                self.spend(1, line)?;
                let literal = style == ScalarStyle::Literal;
                self.add(Node { line, value: Value::Scalar { text, plain, literal } }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.is_text(tag.as_deref(), line)?;
                self.begin(line, anchor, Content::Sequence(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.is_text(tag.as_deref(), line)?;
                let (entries, merged, seen) = (Vec::new(), Vec::new(), HashSet::new());
                self.begin(line, anchor, Content::Mapping { entries, key: None, merged, seen })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    let what = "an alias to the value it is in";
                    return Err(self.problem(line, code::MALFORMED_YAML, what, "write the value out"));
                };
                let nodes = node.count();
                self.alias_nodes += nodes;
                if self.alias_nodes > self.limits.alias_nodes_max {
                    return Err(self.past_limit(line, "alias_nodes_max", self.limits.alias_nodes_max));
                }
                let node = node.clone();
                self.spend(nodes, line)?;
                self.add(node, 0)
            }
            _ => Ok(()),
        }
    }

    /// Whether `tag` makes a scalar text. A tag that is none of YAML's own is refused: nothing here has types.
    fn is_text(&mut self, tag: Option<&Tag>, line: u32) -> Result<bool, Problem> {
        let Some(tag) = tag else { return Ok(false) };
        match tag.core_suffix() {
            Some(suffix) => Ok(suffix == "str"),
            None if tag.suffix().is_empty() || tag.suffix() == "!" => Ok(true),
            None => {
                let what = format!("the tag `!{}` means nothing here", tag.suffix());
                Err(self.problem(line, code::MALFORMED_YAML, what, "remove the tag"))
            }
        }
    }

    fn begin(&mut self, line: u32, anchor: usize, content: Content<'a>) -> Result<(), Problem> {
        if self.awaits_key() {
            let remedy = "write a plain name before the `:`; a template (`{{ }}`) must be rendered first";
            return Err(self.problem(line, code::MALFORMED_YAML, "a key is a list or a mapping", remedy));
        }
        if self.open.len() >= self.limits.document_depth_max {
            return Err(self.past_limit(line, "document_depth_max", self.limits.document_depth_max));
        }
        self.spend(1, line)?;
        self.open.push(Frame { line, anchor, content });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let Some(Frame { line, anchor, content }) = self.open.pop() else { return Ok(()) };
        let value = match content {
            Content::Sequence(items) => Value::Sequence(items),
            Content::Mapping { mut entries, merged, mut seen, .. } => {
                if !merged.is_empty() {
                    seen.extend(entries.iter().map(|entry| entry.key.clone()));
                    merged.into_iter().for_each(|node| merge(&mut entries, &mut seen, node));
                }
                Value::Mapping(entries)
            }
        };
        self.add(Node { line, value }, anchor)
    }

    /// Takes in a node that is complete.
    fn add(&mut self, node: Node<'a>, anchor: usize) -> Result<(), Problem> {
        if anchor != 0 {
            self.spend(node.count(), node.line)?;
            self.anchors.insert(anchor, node.clone());
        }
        if self.awaits_key() {
            return self.key(node);
        }
        match self.open.last_mut().map(|frame| &mut frame.content) {
            None => self.root = Some(node),
            Some(Content::Sequence(items)) => items.push(node),
            Some(Content::Mapping { entries, key, merged, .. }) => {
                let Some(key) = key.take() else { return Ok(()) };
                match (key.role, &node.value) {
                    (KeyRole::Duplicate, _) => {}
                    (KeyRole::Merge, Value::Scalar { .. }) => {
                        let what = "`<<` merges a mapping, or a list of mappings";
                        return Err(self.problem(
                            key.line,
                            code::MALFORMED_YAML,
                            what,
                            "name one with `*anchor`",
                        ));
                    }
                    (KeyRole::Merge, _) => merged.push(node),
                    (KeyRole::Entry, _) => entries.push(Entry { key: key.text, line: key.line, value: node }),
                }
            }
        }
        Ok(())
    }

    /// Whether the innermost open value is a mapping whose next node is a key.
    fn awaits_key(&self) -> bool {
        matches!(self.open.last(), Some(Frame { content: Content::Mapping { key: None, .. }, .. }))
    }

    fn key(&mut self, node: Node<'a>) -> Result<(), Problem> {
        let line = node.line;
        let Value::Scalar { text, plain, .. } = node.value else {
            return Err(self.problem(
                line,
                code::MALFORMED_YAML,
                "a key is a list or a mapping",
                "write a plain name",
            ));
        };
        let duplicate = self.is_duplicate(&text);
        if duplicate {
            let (problems, open) = (&mut self.problems, &self.open);
            problems.push_with(|| {
                let mut path = path(open);
                let first = path.is_empty();
                let _ = write_field(&mut path, first, &text);
                let what = format!("`{text}` is written a second time");
                Problem {
                    line,
                    path,
                    code: code::DUPLICATE_KEY,
                    what,
                    remedy: "keep one of the two".to_owned(),
                }
            });
        }
        let role = match duplicate {
            true => KeyRole::Duplicate,
            false if plain && text == "<<" => KeyRole::Merge,
            false => KeyRole::Entry,
        };
        if let Some(Frame { content: Content::Mapping { key, .. }, .. }) = self.open.last_mut() {
            *key = Some(Key { text, line, role });
        }
        Ok(())
    }

    /// Whether the innermost mapping has that key. Small mappings are scanned; the set of large ones is filled once.
    fn is_duplicate(&mut self, text: &str) -> bool {
        let Some(Frame { content: Content::Mapping { entries, seen, .. }, .. }) = self.open.last_mut() else {
            return false;
        };
        if entries.len() < ENTRIES_SCANNED_MAX {
            return entries.iter().any(|entry| entry.key == text);
        }
        if seen.is_empty() {
            seen.extend(entries.iter().map(|entry| entry.key.clone()));
        }
        !seen.insert(Cow::Owned(text.to_owned()))
    }

    fn spend(&mut self, nodes: usize, line: u32) -> Result<(), Problem> {
        self.nodes += nodes;
        if self.nodes > self.limits.document_nodes_max {
            return Err(self.past_limit(line, "document_nodes_max", self.limits.document_nodes_max));
        }
        Ok(())
    }

    /// See [`Broken::head`].
    fn head(&mut self) -> Option<Node<'a>> {
        let Frame { line, content: Content::Mapping { entries, key, .. }, .. } =
            self.open.drain(..).next()?
        else {
            return None;
        };
        // What stands right behind the metadata may have been meant to be in them.
        let is_past = key.is_some() || entries.last().is_some_and(|last| last.key != "metadata");
        is_past.then_some(Node { line, value: Value::Mapping(entries) })
    }

    fn problem(&self, line: u32, code: &'static str, what: impl Into<String>, remedy: &str) -> Problem {
        Problem { line, path: path(&self.open), code, what: what.into(), remedy: remedy.to_owned() }
    }

    fn past_limit(&self, line: u32, name: &str, limit: usize) -> Problem {
        let what = format!("this is past the limit {name}, which is {limit}");
        self.problem(
            line,
            code::LIMIT_EXCEEDED,
            what,
            "split it into several documents or files, or make it smaller",
        )
    }

    fn malformed(&self, error: &ScanError) -> Problem {
        if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
            let line = self.line(error.marker().line());
            return self.past_limit(line, "document_depth_max", self.limits.document_depth_max);
        }
        let before = if error.marker().line() <= 1 { self.document.columns_before } else { 0 };
        let column = error.marker().col() + 1 + before as usize;
        let line = self.line(error.marker().line());
        if error.info().contains("tab") {
            // The parser tells where the value began that a tab on the next line goes on with.
            let number = error.marker().line().saturating_sub(1);
            let has_tab =
                |number| self.document.text.lines().nth(number).is_some_and(|line| line.contains('\t'));
            let line = if has_tab(number) || !has_tab(number + 1) { line } else { line.saturating_add(1) };
            let what = format!("this is not YAML: {}", error.info());
            return self.problem(
                line,
                code::MALFORMED_YAML,
                what,
                "indent with spaces; YAML allows no tabs there",
            );
        }
        let what = format!("this is not YAML: {} (column {column})", error.info());
        let remedy = "correct the indentation, quotes or brackets here or just before";
        self.problem(line, code::MALFORMED_YAML, what, remedy)
    }
}

/// Where the innermost open value is.
fn path(open: &[Frame<'_>]) -> String {
    let mut path = String::new();
    for frame in open {
        let _ = match &frame.content {
            Content::Sequence(items) => write!(path, "[{}]", items.len()),
            Content::Mapping { key: Some(key), .. } => {
                let first = path.is_empty();
                write_field(&mut path, first, &key.text)
            }
            Content::Mapping { key: None, .. } => Ok(()),
        };
    }
    path
}

/// Adds what a merge key brings in: entries whose keys are not `seen` yet, the first that brings one wins.
fn merge<'a>(entries: &mut Vec<Entry<'a>>, seen: &mut HashSet<Cow<'a, str>>, node: Node<'a>) {
    match node.value {
        Value::Mapping(brought) => {
            for entry in brought {
                if seen.insert(entry.key.clone()) {
                    entries.push(entry);
                }
            }
        }
        Value::Sequence(items) => items.into_iter().for_each(|item| merge(entries, seen, item)),
        Value::Scalar { .. } => {}
    }
}
