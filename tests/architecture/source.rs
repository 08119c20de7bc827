//! Rust sources, as far as rules look at them: lines, and the paths that code names.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

/// One file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the workspace.
    pub(crate) path: String,
    /// What it holds.
    pub(crate) text: String,
    /// Where its module is in its crate, such as `http::codec::body`; empty for the crate's root.
    module: Vec<String>,
}

/// A path that code names. `crate`, `self` and `super` are resolved: `crate::http::codec` for what is in this crate,
/// and as it is written otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its segments.
    pub(crate) path: Vec<String>,
    /// The module that names it, down to modules within a file.
    pub(crate) within: Vec<String>,
    /// Line where it stands.
    pub(crate) line: usize,
}

impl Source {
    /// A text that is not in a file. `module` is written with `::`.
    pub(crate) fn of(path: &str, module: &str, text: &str) -> Source {
        let module = module.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Source { path: path.to_owned(), text: text.to_owned(), module }
    }

    /// All files under a directory of the workspace.
    pub(crate) fn under(directory: &str) -> Vec<Source> {
        let mut files = Vec::new();
        collect(&workspace().join(directory), &mut files);
        assert!(!files.is_empty(), "no sources under {directory}");
        let of_file = |file: PathBuf| {
            let relative = file.strip_prefix(workspace()).expect("a file of the workspace").to_owned();
            let within = file.strip_prefix(workspace().join(directory)).expect("a file of the directory");
            let mut module: Vec<String> =
                within.with_extension("").iter().map(|name| name.to_string_lossy().into_owned()).collect();
            if module.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib")) {
                module.pop();
            }
            let text = fs::read_to_string(&file).expect("a file of text");
            Source { path: relative.display().to_string(), text, module }
        };
        files.into_iter().map(of_file).collect()
    }

    /// The paths of two or more segments that its code names; comments and strings are no code.
    pub(crate) fn names(&self) -> Vec<Named> {
        let mut names = Vec::new();
        let tokens: Vec<TokenTree> = self.tokens().into_iter().collect();
        walk(&tokens, &Module::of(self.module.clone(), &tokens), &mut names);
        names
    }

    /// Its `allow` and `expect` attributes: the line, and the text between the parentheses.
    pub(crate) fn exceptions(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        exceptions(self.tokens(), &mut found);
        found
    }

    fn tokens(&self) -> TokenStream {
        self.text.parse().unwrap_or_else(|error| panic!("{}: {error}", self.path))
    }
}

/// The workspace's directory.
pub(crate) fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Files in Rust, in order.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            collect(&entry, files);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
}

/// Where code stands.
struct Module {
    path: Vec<String>,
    /// Names of the modules declared in it: a path that begins with one leads there, and not to a crate of that name.
    children: Vec<String>,
}

impl Module {
    fn of(path: Vec<String>, tokens: &[TokenTree]) -> Module {
        let declared = tokens.windows(2).filter_map(|pair| match pair {
            [TokenTree::Ident(word), TokenTree::Ident(name)] if word == "mod" => Some(name.to_string()),
            _ => None,
        });
        Module { path, children: declared.collect() }
    }

    fn child(&self, name: &str, tokens: &[TokenTree]) -> Module {
        Module::of(self.path.iter().cloned().chain([name.to_owned()]).collect(), tokens)
    }
}

fn walk(tokens: &[TokenTree], module: &Module, names: &mut Vec<Named>) {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Ident(word) if word == "mod" => {
                if let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) =
                    (tokens.get(at + 1), tokens.get(at + 2))
                {
                    let tokens: Vec<TokenTree> = body.stream().into_iter().collect();
                    walk(&tokens, &module.child(&name.to_string(), &tokens), names);
                    at += 2;
                }
                at += 1;
            }
            // What stands behind `::` belongs to a path that does not begin with a name, such as `<T as A>::B`.
            TokenTree::Ident(_) if !is_separator(tokens, at.wrapping_sub(2)) => {
                at = tree(tokens, at, &[], module, names);
            }
            TokenTree::Group(group) => {
                walk(&group.stream().into_iter().collect::<Vec<_>>(), module, names);
                at += 1;
            }
            _ => at += 1,
        }
    }
}

/// Reads a path, or a tree of them as in `use`, that begins at `at`; returns where it ends.
fn tree(
    tokens: &[TokenTree],
    mut at: usize,
    before: &[String],
    module: &Module,
    names: &mut Vec<Named>,
) -> usize {
    let mut path = before.to_vec();
    let mut all = false;
    let line = tokens.get(at).map_or(0, |token| token.span().start().line);
    while let Some(TokenTree::Ident(segment)) = tokens.get(at) {
        path.push(segment.to_string());
        at += 1;
        if !is_separator(tokens, at) {
            break;
        }
        at += 2;
        match tokens.get(at) {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                branches(group, &path, module, names);
                return at + 1;
            }
            Some(TokenTree::Ident(_)) => {}
            // A star, which names all of a module, or the angle bracket of `collect::<Vec<_>>`.
            token => {
                all = matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == '*');
                break;
            }
        }
    }
    if path.len() > 1 || all {
        names.push(Named { path: resolve(&path, module), within: module.path.clone(), line });
    }
    at
}

fn branches(group: &Group, path: &[String], module: &Module, names: &mut Vec<Named>) {
    let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        let end = tree(&tokens, at, path, module, names);
        // Stars, commas, and the names behind `as`.
        let comma = tokens.iter().skip(end).position(is_comma);
        at = comma.map_or(tokens.len(), |comma| end + comma + 1);
    }
}

fn is_comma(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',')
}

/// Whether `::` stands at `at`.
fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |at: usize| match tokens.get(at) {
        Some(TokenTree::Punct(punct)) if punct.as_char() == ':' => Some(punct.spacing()),
        _ => None,
    };
    colon(at) == Some(Spacing::Joint) && colon(at.wrapping_add(1)).is_some()
}

fn resolve(path: &[String], module: &Module) -> Vec<String> {
    let mut own = module.path.clone();
    let mut rest = path;
    loop {
        match rest.first().map(String::as_str) {
            Some("crate") => own.clear(),
            Some("self") => {}
            Some("super") => drop(own.pop()),
            Some(first)
                if rest.len() == path.len() && !module.children.iter().any(|child| child == first) =>
            {
                return path.to_vec();
            }
            _ => break,
        }
        rest = &rest[1..];
    }
    ["crate".to_owned()].into_iter().chain(own).chain(rest.iter().cloned()).collect()
}

fn exceptions(tokens: TokenStream, found: &mut Vec<(usize, String)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        let hash = matches!(tokens.get(at.wrapping_sub(1)), Some(TokenTree::Punct(punct)) if matches!(punct.as_char(), '#' | '!'));
        let inner: Vec<TokenTree> = group.stream().into_iter().collect();
        if let (true, Some(TokenTree::Ident(name)), Some(TokenTree::Group(arguments))) =
            (hash && group.delimiter() == Delimiter::Bracket, inner.first(), inner.get(1))
            && (name == "allow" || name == "expect")
        {
            found.push((name.span().start().line, arguments.stream().to_string()));
        }
        exceptions(group.stream(), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(module: &str, text: &str, expected: &[&str]) {
        let names = Source::of("", module, text).names();
        let names: Vec<String> = names.iter().map(|name| name.path.join("::")).collect();
        assert_eq!(names, expected, "{text}");
    }

    #[test]
    fn paths_are_found_and_resolved() {
        check("http::path", "use crate::time;", &["crate::time"]);
        check(
            "http::path",
            "use super::codec::{Body, self as c};",
            &["crate::http::codec::Body", "crate::http::codec::self"],
        );
        check(
            "http",
            "use super::{time, net::{a, b as c}, worker::*};",
            &["crate::time", "crate::net::a", "crate::net::b", "crate::worker"],
        );
        check("a", "fn f() { x(crate::b::C { d: std::e::<F>() }) }", &["crate::b::C", "std::e"]);
        check("a", "m! { crate::b::c!() }", &["crate::b::c"]);
        check("a", "mod h2; use h2::X; mod b { use h2::Y; }", &["crate::a::h2::X", "h2::Y"]);
        check("a::b", "mod tests { use super::*; use super::super::c; }", &["crate::a::b", "crate::a::c"]);
        check("a", "// crate::b\n/* crate::c */ const X: &str = \"crate::d\";", &[]);
        check(
            "a",
            "struct S { a: B } impl S { fn f(self) -> self::c::D { <S as T>::g() } }",
            &["crate::a::c::D"],
        );
    }

    #[test]
    fn attributes_are_found_with_their_reasons() {
        let text =
            "#![allow(a, reason = \"b\")]\n#[expect(c)]\nfn f() { #[allow(d)] let e = option.expect(1); }";
        let found = Source::of("", "", text).exceptions();
        let found: Vec<(usize, &str)> = found.iter().map(|(line, text)| (*line, text.as_str())).collect();
        assert_eq!(found, [(1, "a , reason = \"b\""), (2, "c"), (3, "d")]);
    }
}
