//! The house rules, read from the source: which way imports go, who may name what, how long
//! a file and a function may be. `docs/ARCHITECTURE.md` says what the rules are for.

use std::path::{Path, PathBuf};

/// Who may import whom, and what for. What is not here is not allowed.
const IMPORTS: [(&str, &str, &str); 43] = [
    ("main", "cli", "the program is its command line"),
    ("storage", "shop", "rows become the law's types and back"),
    ("storage", "telemetry", "what repeats in the log is counted"),
    ("engine", "shop", "the writer applies the law"),
    ("engine", "storage", "and commits what it says"),
    ("auth", "shop", "a token names an account"),
    ("http", "shop", "requests are parsed into the law's types"),
    ("http", "storage", "reads go straight to the database"),
    ("http", "engine", "whatever moves coins goes on the queue"),
    ("http", "limits", "a shop without a gateway may hold its clients to limits"),
    ("http", "auth", "guarded routes ask who it is"),
    ("http", "lifecycle", "readiness and keep-alive end before the process does"),
    ("http", "telemetry", "/metrics shows what was recorded"),
    ("http", "accept", "connections are let in under its limits"),
    ("gateway", "accept", "the same"),
    ("http", "web", "all servers read the heads of requests alike"),
    ("gateway", "web", "the same"),
    ("limits", "web", "who a client is stands in one"),
    ("accept", "lifecycle", "it lets nobody in after the end"),
    ("accept", "telemetry", "what repeats is counted"),
    ("engine", "telemetry", "the same"),
    ("private_postgres", "telemetry", "the same"),
    ("limits", "storage", "limits of clients' own may live in the database"),
    ("gateway", "limits", "it holds clients to their limits"),
    ("gateway", "config", "its limits are settings"),
    ("gateway", "lifecycle", "it shuts down like any server"),
    ("gateway", "telemetry", "it is observed like any server"),
    ("telemetry", "config", "the log's level and format are settings"),
    ("private_postgres", "data_folder", "its cluster lives there"),
    ("private_postgres", "lifecycle", "it is not restarted while everything ends"),
    ("cli", "shop", "arguments are parsed into the law's types"),
    ("cli", "storage", "each command puts its world together"),
    ("cli", "engine", "the same"),
    ("cli", "auth", "the same"),
    ("cli", "http", "the same"),
    ("cli", "gateway", "the same"),
    ("cli", "limits", "the same"),
    ("cli", "config", "the same"),
    ("cli", "web", "the same"),
    ("cli", "lifecycle", "the same"),
    ("cli", "telemetry", "the same"),
    ("cli", "data_folder", "the same"),
    ("cli", "private_postgres", "the same"),
];

/// What only some modules may name, which those are, and why.
const NAMED_ONLY_IN: [(&str, &[&str], &str); 8] = [
    ("axum::", &["http", "gateway", "web"], "nothing below the routes knows that it is HTTP"),
    ("hyper::", &["http", "gateway", "accept"], "the same, but for what a connection carries"),
    ("StatusCode", &["http", "gateway", "web"], "errors carry no transport until the last step"),
    ("utoipa", &["http", "gateway", "web"], "the documents describe the routes"),
    ("sqlx::", &["storage"], "the only SQL is there"),
    ("redis::", &["limits"], "shared buckets and limits are all that lives there"),
    ("argon2::", &["auth"], "passwords are hashed in one place"),
    ("ledger_write", &["storage", "engine"], "no balance changes anywhere else"),
];

/// What some modules must not name, and why.
const NEVER_NAMED_IN: [(&str, &[&str], &str); 4] = [
    ("shop", &["std::time", "std::fs", "std::io", "std::env", "std::net"], "the law is pure"),
    ("shop", &["tokio", "rand::", "tracing", "metrics::", "async "], "the same"),
    ("storage", &["std::fs", "tokio::fs", "std::env"], "the database is all it has"),
    ("engine", &["std::fs", "tokio::fs", "std::env"], "whatever it needs is handed over"),
];

const LONGEST_FILE: usize = 500;

/// From a function's `fn` to its closing brace. A screen is about 50 lines: what does not fit on one
/// is read twice. This is what the longest one takes now; it only ever gets less.
const LONGEST_FUNCTION: usize = 60;

struct Source {
    /// Below the root of the repository, as in `src/shop/coins.rs`.
    path: PathBuf,
    text: String,
}

#[test]
fn imports_go_one_way() {
    for source in sources("src") {
        let module = source.top_module();
        for imported in source.imports() {
            let allowed =
                IMPORTS.iter().any(|(from, to, _)| (*from, *to) == (&module, imported.as_str()));
            assert!(
                allowed || module == imported,
                "{} imports crate::{imported}: `{module}` may not",
                source.path.display(),
            );
        }
    }
}

#[test]
fn what_belongs_to_one_layer_is_named_in_no_other() {
    for source in sources("src") {
        let module = source.top_module();
        let code = source.code();
        for (what, homes, why) in NAMED_ONLY_IN {
            assert!(
                homes.contains(&module.as_str()) || !names(&code, what),
                "{} names {what}, which only {homes:?} may: {why}",
                source.path.display(),
            );
        }
        for (home, forbidden, why) in NEVER_NAMED_IN {
            for what in forbidden.iter().filter(|_| home == module) {
                assert!(
                    !names(&code, what),
                    "{} names {what}, which {home} may not: {why}",
                    source.path.display(),
                );
            }
        }
    }
}

#[test]
fn how_a_transaction_begins_stands_in_one_file() {
    for source in sources("src") {
        let is_the_door = source.path.ends_with("storage/door.rs");
        let begins = ["BEGIN", "START TRANSACTION"].iter().any(|it| names(&source.code(), it));
        assert_eq!(
            begins,
            is_the_door,
            "{} begins a transaction: storage/door.rs is the door to those",
            source.path.display(),
        );
    }
}

#[test]
fn no_file_is_longer_than_somebody_reads_at_once() {
    for source in everything() {
        let lines = source.text.lines().count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines", source.path.display());
    }
}

#[test]
fn no_function_is_longer_than_somebody_sees_at_once() {
    for source in sources("src").iter().filter(|source| !source.is_of_tests()) {
        // Tests are tables, which are read line by line.
        let (code, _) = source.text.split_once("\nmod tests {").unwrap_or((&source.text, ""));
        for (name, lines) in functions(code) {
            let place = source.path.display();
            assert!(lines <= LONGEST_FUNCTION, "{name} in {place} has {lines} lines");
        }
    }
}

#[test]
fn nothing_is_left_to_be_done_later() {
    // In two pieces each, because this file is read too.
    let words = [("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("todo", "!("), ("dbg", "!(")];
    for source in everything() {
        for (start, end) in words {
            let word = format!("{start}{end}");
            let found = source.text.lines().position(|line| line.contains(&word));
            assert_eq!(found, None, "{word} in {}", source.path.display());
        }
    }
}

#[test]
fn the_name_of_every_test_is_a_sentence() {
    let mut tests = 0;
    for source in everything() {
        let mut lines = source.text.lines().map(str::trim_start);
        while let Some(line) = lines.next() {
            if !line.starts_with("#[test]") && !line.starts_with("#[tokio::test") {
                continue;
            }
            let declared = lines.find_map(|line| line.split_once("fn ")).unwrap();
            let name = declared.1.split('(').next().unwrap();
            assert!(name.split('_').count() >= 3, "{name} in {}", source.path.display());
            tests += 1;
        }
    }
    assert!(tests > 20, "only {tests} tests were found");
}

#[test]
fn every_file_says_first_what_it_is() {
    for source in everything() {
        assert!(source.text.starts_with("//! "), "{}", source.path.display());
    }
}

#[test]
fn every_dependency_has_its_reason_and_every_reason_its_dependency() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let reasons = root.join("docs/decisions/dependencies.md");
    let reasons = std::fs::read_to_string(reasons).unwrap();
    let mut explained: Vec<&str> = reasons
        .lines()
        .filter_map(|line| line.strip_prefix("- `")?.split_once("`: "))
        .inspect(|(name, why)| assert!(why.len() > 10, "{name}: {why}"))
        .map(|(name, _)| name)
        .collect();

    let mut section = "";
    let mut depended_on: Vec<&str> = Vec::new();
    for line in manifest.lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
        } else if section.ends_with("dependencies") {
            depended_on.extend(line.split_once(" = ").map(|(name, _)| name));
        }
    }
    depended_on.sort_unstable();
    depended_on.dedup();
    explained.sort_unstable();
    assert_eq!(explained, depended_on, "docs/decisions/dependencies.md and Cargo.toml");
}

/// Every source file of the program and of its tests.
fn everything() -> Vec<Source> {
    ["src", "tests"].into_iter().flat_map(sources).collect()
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                sources.push(Source { path: path.strip_prefix(root).unwrap().into(), text });
            }
        }
    }
    assert!(sources.len() > 3, "{folder} is where the sources are");
    sources
}

impl Source {
    /// The module path of the file: `shop`, `coins`; of `lib.rs` and `main.rs` none.
    fn modules(&self) -> Vec<String> {
        let path = self.path.strip_prefix("src").unwrap().with_extension("");
        let names = path.components().map(|name| name.as_os_str().to_str().unwrap().to_owned());
        names.filter(|name| !["mod", "lib", "main"].contains(&name.as_str())).collect()
    }

    /// The module right below the root that the file belongs to, or the root's own name.
    fn top_module(&self) -> String {
        let stem = self.path.file_stem().unwrap().to_str().unwrap();
        self.modules().into_iter().next().unwrap_or(stem.into())
    }

    /// Whether there is nothing but tests in it.
    fn is_of_tests(&self) -> bool {
        self.modules().iter().any(|name| name == "tests")
    }

    /// The text without comments that take whole lines.
    fn code(&self) -> String {
        let lines = self.text.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.flat_map(|line| [line, "\n"]).collect()
    }

    /// The modules right below the root that paths in the code lead to, wherever they stand.
    fn imports(&self) -> Vec<String> {
        let (code, modules) = (self.code(), self.modules());
        let roots = code.match_indices("crate::").chain(code.match_indices("merch_store::"));
        let mut imports: Vec<String> =
            roots.flat_map(|(at, root)| heads(&code[at + root.len()..])).collect();
        for (at, _) in code.match_indices("super::") {
            // The first of a chain speaks for all of it.
            if code[..at].ends_with("super::") {
                continue;
            }
            let chain = &code[at..];
            let tail = chain.trim_start_matches("super::");
            let up = (chain.len() - tail.len()) / "super::".len();
            if up < modules.len() {
                imports.push(modules[0].clone());
            } else {
                imports.extend(heads(tail));
            }
        }
        // An inline module of tests calls its file's own things by the root's path.
        let exists = |name: &str| {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name);
            source.is_dir() || source.with_extension("rs").is_file()
        };
        imports.retain(|name| !name.is_empty() && exists(name));
        imports
    }
}

/// The functions in `code`, as rustfmt leaves it: each with its name and its number of lines.
fn functions(code: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut functions = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let declared = line.trim_start();
        let Some((modifiers, rest)) = declared.split_once("fn ") else { continue };
        let is_modifier =
            |word: &str| word.starts_with("pub") || ["const", "async", "unsafe"].contains(&word);
        if !modifiers.split_whitespace().all(is_modifier) {
            continue;
        }
        let indentation = &line[..line.len() - declared.len()];
        // A brace of its own; or the end of what is declared without a body.
        let is_end = |line: &&str| {
            line.strip_prefix(indentation).is_some_and(|line| {
                line.starts_with('}') || (line.starts_with(')') && line.ends_with(';'))
            })
        };
        let after = match declared.ends_with([';', '}']) {
            true => 0,
            false => 1 + lines[start + 1..].iter().position(is_end).unwrap(),
        };
        let name = rest.split(['(', '<']).next().unwrap_or_default();
        functions.push((name, 1 + after));
    }
    functions
}

/// The first names of a path or of a tree of paths: `a` of `a::b`, `a` and `c` of
/// `{a::b, c}`.
fn heads(tail: &str) -> Vec<String> {
    let first_name = |path: &str| {
        let path = path.trim_start();
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
        path[..end].to_owned()
    };
    let Some(group) = tail.strip_prefix('{') else { return vec![first_name(tail)] };
    let mut heads = vec![first_name(group)];
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => heads.push(first_name(&group[at + 1..])),
            _ => {}
        }
    }
    heads
}

/// Whether `code` has `what` in it, not as the end of a longer name.
fn names(code: &str, what: &str) -> bool {
    code.match_indices(what).any(|(at, _)| {
        !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
    })
}

#[test]
fn the_counter_of_lines_sees_where_a_function_ends() {
    for (code, expected) in [
        ("fn a() {}\nconst fn b() -> u8 {\n    1\n}\n", vec![("a", 1), ("b", 3)]),
        ("    pub(super) async fn c(\n        d: u8,\n    ) {\n    }\n", vec![("c", 4)]),
        ("    fn e<T>(\n        f: T,\n    ) -> T;\n    fn g();\n", vec![("e", 3), ("g", 1)]),
        ("/// A fn h() {\nlet i: fn () = j;\n", vec![]),
        ("fn k() {\n    fn l() {\n    }\n}\n", vec![("k", 4), ("l", 2)]),
    ] {
        assert_eq!(functions(code), expected, "{code}");
    }
}

#[test]
fn the_reader_of_imports_sees_through_groups_and_supers() {
    for (tail, expected) in [
        ("shop::Coins;", vec!["shop"]),
        ("{shop::{Coins, Amount}, storage};", vec!["shop", "storage"]),
        ("{\n    engine,\n    auth::token::{Identity, Tokens},\n};", vec!["engine", "auth", ""]),
    ] {
        assert_eq!(heads(tail), expected, "{tail}");
    }
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    for (path, text, expected) in [
        ("src/engine/batch.rs", "use crate::storage::Writer;", vec!["storage"]),
        ("src/engine/batch.rs", "use super::queue::Engine;", vec!["engine"]),
        ("src/engine/batch.rs", "super::super::http::serve()", vec!["http"]),
        ("src/engine/mod.rs", "use super::http;", vec!["http"]),
        ("src/config.rs", "mod tests { use super::*; }", vec![]),
        ("src/shop/ledger/tests/books.rs", "use super::super::*;", vec!["shop"]),
        ("src/main.rs", "use merch_store::cli;", vec!["cli"]),
        ("src/lib.rs", "// crate::http is not code", vec![]),
    ] {
        assert_eq!(source(path, text).imports(), expected, "{path}: {text}");
    }
    assert!(names("use axum::Router;", "axum::") && !names("my_axum::x()", "axum::"));
}
