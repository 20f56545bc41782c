//! The tree is the diagram: who may know whom, and what SQL may rely on. Read from the sources, so that a wrong arrow
//! fails here and not in a review.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Which rooms each room may know. `service` wires; nobody else knows so much.
const ARROWS: &[(&str, &[&str])] = &[
    ("timestamp", &[]),
    ("config", &[]),
    ("auth", &[]),
    ("metrics", &[]),
    ("telemetry", &["config"]),
    ("domain", &[]),
    ("event_store", &[]),
    ("application", &["domain", "event_store", "metrics", "telemetry", "timestamp"]),
    ("read_model", &["domain", "event_store", "metrics", "telemetry", "timestamp"]),
    ("copy", &["application", "domain", "event_store", "read_model"]),
    ("audit", &["application", "domain", "event_store", "metrics", "read_model", "timestamp"]),
    (
        "http",
        &["application", "audit", "auth", "domain", "event_store", "metrics", "read_model", "telemetry", "timestamp"],
    ),
    ("relay", &["event_store", "metrics", "timestamp"]),
    ("database", &["config", "event_store", "metrics"]),
    ("service", &["application", "audit", "auth", "config", "database", "event_store", "http", "read_model", "relay"]),
];

/// Crates that a room must not use.
const FOREIGN: &[(&str, &[&str])] = &[
    ("domain", &["sqlx", "axum", "tokio", "futures_util", "chrono", "nix", "clap", "tracing"]),
    ("event_store", &["axum", "clap", "utoipa"]),
    ("application", &["axum", "clap"]),
    ("read_model", &["axum", "clap"]),
    ("audit", &["axum", "clap"]),
    ("copy", &["axum", "clap"]),
    ("auth", &["sqlx", "axum", "clap"]),
    ("http", &["sqlx", "clap", "jsonwebtoken"]),
    ("relay", &["axum", "clap", "utoipa"]),
    ("database", &["axum", "utoipa"]),
    ("config", &["sqlx", "axum", "tokio"]),
];

/// What the domain must not do, however it comes by it: read a clock, make ids, touch files or the network.
const IMPURE: &[&str] = &["std::fs", "std::net", "std::io", "std::env", "std::time", "std::thread", "now_v7", "new_v4"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|found| found == extension) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// A source without its comments, and the texts that stand in it.
#[derive(Default)]
struct Source {
    code: String,
    texts: Vec<String>,
}

/// Tells code, comments and texts apart. Texts are left out of the code.
fn read(source: &str) -> Source {
    let mut read = Source::default();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let in_word = read.code.ends_with(|last: char| last.is_alphanumeric() || last == '_');
        let fence: String = rest.strip_prefix('r').unwrap_or_default().chars().take_while(|c| *c == '#').collect();
        let raw = !in_word && rest.strip_prefix('r').is_some_and(|raw| raw[fence.len()..].starts_with('"'));
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, next)| next);
            read.code.push('\n');
        } else if raw {
            let end = format!("\"{fence}");
            let (text, next) = rest[fence.len() + 2..].split_once(&end).unwrap();
            read.texts.push(text.to_owned());
            rest = next;
        } else if first == '"' {
            let mut length = 1;
            while !rest[length..].starts_with('"') {
                length += if rest[length..].starts_with('\\') { 2 } else { 1 };
                while !rest.is_char_boundary(length) {
                    length += 1;
                }
            }
            // The end of a line that goes on does not count.
            let text = rest[1..length].split("\\\n").map(str::trim_start).collect::<Vec<_>>().join("");
            read.texts.push(text);
            rest = &rest[length + 1..];
        } else if let Some(length) = character_literal(rest) {
            rest = &rest[length..];
        } else {
            read.code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    read
}

/// How long the character literal is that stands here; nothing where a lifetime does.
fn character_literal(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    if inner.starts_with('\\') {
        return inner[2..].find('\'').map(|end| end + 4);
    }
    let character = inner.chars().next()?;
    inner[character.len_utf8()..].starts_with('\'').then_some(character.len_utf8() + 2)
}

/// Every path in `code` that begins with `start`, groups in braces written out: `crate::{a::B, c}` is `a::B` and `c`.
fn paths(code: &str, start: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(start) {
        if !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
            expand("", &code[at + start.len()..], &mut found);
        }
    }
    found
}

/// Adds the paths of the tree at the beginning of `code` and returns what comes behind it.
fn expand<'a>(prefix: &str, code: &'a str, found: &mut BTreeSet<String>) -> &'a str {
    let code = code.trim_start();
    if let Some(mut group) = code.strip_prefix('{') {
        loop {
            group = expand(prefix, group, found).trim_start();
            match group.strip_prefix(',') {
                Some(next) if next.trim_start().starts_with('}') => return &next.trim_start()[1..],
                Some(next) => group = next,
                None => return group.strip_prefix('}').unwrap_or(group),
            }
        }
    }
    let end = code.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(code.len());
    let (segment, rest) = code.split_at(end);
    let path = if prefix.is_empty() { segment.to_owned() } else { format!("{prefix}::{segment}") };
    match rest.strip_prefix("::").filter(|rest| rest.starts_with(|c: char| c.is_alphabetic() || c == '{' || c == '*')) {
        Some(rest) => expand(&path, rest, found),
        None => {
            found.insert(path);
            // `as` gives a name that is nobody else's business.
            rest.trim_start()
                .strip_prefix("as ")
                .map_or(rest, |alias| alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_' || c == ' '))
        }
    }
}

/// The code of each room.
fn rooms() -> BTreeMap<String, Vec<(String, String)>> {
    let mut rooms: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for path in files("src", "rs") {
        let within = path.strip_prefix(root().join("src")).unwrap();
        let room = within.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let code = read(&fs::read_to_string(&path).unwrap()).code;
        rooms.entry(room.to_owned()).or_default().push((name(&path), code));
    }
    rooms.remove("main");
    rooms.remove("lib");
    rooms
}

/// What the code names of this library, whether by `crate::` or, from a room's first file, by `super::`.
fn known(file: &str, code: &str) -> BTreeSet<String> {
    let mut known = paths(code, "crate::");
    let depth = file.trim_end_matches("/mod.rs").matches('/').count();
    known.extend(paths(code, &"super::".repeat(depth)));
    known
}

fn uses_crate(code: &str, name: &str) -> bool {
    let path = format!("{name}::");
    code.match_indices(name).any(|(at, _)| {
        let starts = !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':');
        starts && (code[at..].starts_with(&path) || code[..at].trim_end().ends_with("use"))
    })
}

#[test]
fn every_room_has_its_arrows_and_stands_in_the_library() {
    let drawn: BTreeSet<&str> = ARROWS.iter().map(|(room, _)| *room).collect();
    let built = rooms();
    assert_eq!(drawn, built.keys().map(String::as_str).collect::<BTreeSet<_>>());
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for room in built.keys() {
        assert!(library.contains(&format!("pub mod {room};")), "src/lib.rs does not list {room}");
    }
}

#[test]
fn a_room_knows_only_the_rooms_that_its_arrows_lead_to() {
    let rooms = rooms();
    let mut arrows = 0;
    for (room, allowed) in ARROWS {
        for (file, code) in &rooms[*room] {
            for path in known(file, code) {
                let other = path.split("::").next().unwrap();
                if other == *room || !rooms.contains_key(other) {
                    continue;
                }
                arrows += 1;
                assert!(allowed.contains(&other), "{file} names {path}, and {room} must not know {other}");
            }
        }
    }
    assert!(arrows > 30, "only {arrows} arrows were found");
}

#[test]
fn http_knows_positions_but_not_the_log() {
    for (file, code) in &rooms()["http"] {
        for path in known(file, code).iter().filter(|path| path.starts_with("event_store")) {
            let position = ["event_store::Position", "event_store::InvalidPosition"];
            assert!(position.contains(&path.as_str()), "{file} names {path}");
        }
    }
}

#[test]
fn http_takes_of_the_read_model_what_queries_answer_and_not_how_it_is_projected() {
    for (file, code) in &rooms()["http"] {
        for path in known(file, code) {
            assert!(!path.starts_with("read_model::project"), "{file} names {path}");
        }
    }
}

#[test]
fn a_room_does_not_use_the_crates_of_other_rooms() {
    let rooms = rooms();
    for (room, foreign) in FOREIGN {
        for (file, code) in &rooms[*room] {
            for name in *foreign {
                assert!(!uses_crate(code, name), "{file} uses {name}, and {room} must not");
            }
        }
    }
    assert!(uses_crate(&rooms["event_store"].iter().map(|(_, code)| code.as_str()).collect::<String>(), "sqlx"));
}

#[test]
fn the_domain_has_no_clock_no_random_numbers_and_no_io() {
    for (file, code) in &rooms()["domain"] {
        for impure in IMPURE {
            assert!(!code.contains(impure), "{file} uses {impure}");
        }
        let std = paths(code, "std::");
        let allowed = ["sync::Arc", "fmt", "collections", "str"];
        for path in std {
            assert!(allowed.iter().any(|allowed| path.starts_with(allowed)), "{file} uses std::{path}");
        }
    }
}

#[test]
fn every_file_begins_by_saying_what_it_is_responsible_for() {
    for path in files("src", "rs") {
        let source = fs::read_to_string(&path).unwrap();
        let first = source.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! ") && first.len() > 10, "{} begins with {first:?}", name(&path));
    }
}

#[test]
fn sources_are_read_as_code_comments_and_texts() {
    let source = "use a::b; // crate::no\nlet x = '\"'; f::<'a>(r#\"raw \"x\"\"#, \"es\\\"caped\", br); 'c'";
    let read = read(source);
    assert_eq!(read.texts, ["raw \"x\"", "es\\\"caped"]);
    assert_eq!(read.code, "use a::b; \nlet x = ; f::<'a>(, , br); ");
}

#[test]
fn paths_are_found_in_groups_and_in_the_midst_of_code() {
    let code = "use crate::{a::{self, B as C}, d::{e::F, g}, h,};\nuse crate::i::*; |x: crate::j::K| $crate::no::no; x_crate::no";
    let expected = ["a::B", "a::self", "d::e::F", "d::g", "h", "i::*", "j::K"];
    assert_eq!(paths(code, "crate::").iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

/// What no SQL may hold, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    ("serial", "positions come from the head"),
    ("smallserial", "positions come from the head"),
    ("bigserial", "positions come from the head"),
    ("sequence", "a sequence leaves holes and becomes visible out of order"),
    ("nextval", "a sequence leaves holes and becomes visible out of order"),
    ("identity", "a sequence leaves holes and becomes visible out of order"),
    ("listen", "nothing may need a notification"),
    ("notify", "NOTIFY in a transaction serialises the whole cluster"),
    ("pg_notify", "NOTIFY in a transaction serialises the whole cluster"),
    ("offset", "pages go on behind a key"),
    ("references", "a foreign key may cross partitions"),
];

/// A statement, or the body of a function, without comments, in lower case and with single spaces.
struct Sql {
    from: String,
    text: String,
}

fn without_comments(sql: &str) -> String {
    let lines = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join(" ").split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

fn is_statement(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "CREATE", "ALTER", "DROP", "TRUNCATE", "LOCK"].contains(&first)
}

fn every_sql() -> Vec<Sql> {
    let mut all = Vec::new();
    for path in files("src", "sql").into_iter().chain(files("migrations", "sql")) {
        all.push(Sql { from: name(&path), text: without_comments(&fs::read_to_string(&path).unwrap()) });
    }
    for path in files("src", "rs") {
        let texts = read(&fs::read_to_string(&path).unwrap()).texts;
        let statements = texts.iter().filter(|text| is_statement(text));
        all.extend(statements.map(|text| Sql { from: name(&path), text: without_comments(text) }));
    }
    assert!(all.len() > 20, "only {} statements were found", all.len());
    all
}

fn words(sql: &str) -> Vec<&str> {
    sql.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect()
}

/// The tables of the migrations, each with the text between its parentheses.
fn tables() -> BTreeMap<String, String> {
    let mut tables = BTreeMap::new();
    for path in files("migrations", "sql") {
        let sql = without_comments(&fs::read_to_string(&path).unwrap());
        for (at, start) in sql.match_indices("create table ") {
            let rest = &sql[at + start.len()..];
            let (table, columns) = rest.split_once(" (").unwrap();
            tables.insert(table.to_owned(), enclosed(columns).trim().to_owned());
        }
    }
    assert!(tables.len() >= 5, "only {tables:?}");
    tables
}

/// The text up to the end of the statement or of the parentheses that it stands in.
fn enclosed(text: &str) -> &str {
    let mut depth = 0;
    let end = text.find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth < 0 || (depth == 0 && c == ';')
    });
    &text[..end.unwrap_or(text.len())]
}

#[test]
fn every_table_begins_with_the_partition_and_so_does_every_key() {
    for (table, columns) in tables() {
        assert!(columns.starts_with("partition smallint"), "{table}: {columns}");
        for key in ["primary key (", "unique ("] {
            for (at, _) in columns.match_indices(key) {
                assert!(columns[at + key.len()..].starts_with("partition"), "{table}: {}", &columns[at..]);
            }
        }
    }
    for Sql { from, text } in every_sql() {
        for (at, start) in text.match_indices(" index ") {
            let columns = text[at + start.len()..].split_once(" (").unwrap().1;
            assert!(columns.starts_with("partition,"), "{from}: an index begins with {columns}");
        }
    }
}

/// What is wrong with how `sql` names the partitions of `table`.
fn without_partition(sql: &str, table: &str) -> Option<String> {
    for verb in ["from", "join", "update", "insert into"] {
        let reference = format!("{verb} {table}");
        for (at, _) in sql.match_indices(&reference) {
            let rest = &sql[at + reference.len()..];
            let whole_word = !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
            let locks = sql[..at].ends_with("for ");
            if !whole_word || locks || sql[..at].ends_with(|c: char| c.is_alphanumeric()) {
                continue;
            }
            let alias = rest.strip_prefix(" as ").map(|rest| words(rest)[0]);
            if verb == "insert into" {
                let columns =
                    rest.trim_start_matches(" as ").trim_start_matches(alias.unwrap_or_default()).trim_start();
                if !["(partition,", "( partition,", "values ("].iter().any(|start| columns.starts_with(start)) {
                    return Some(format!("{reference}{rest}"));
                }
                continue;
            }
            let qualified = format!("{}.partition", alias.unwrap_or(table));
            let equal = [format!("{qualified} = "), format!(" = {qualified}"), "using (partition".to_owned()];
            let bare =
                alias.is_none() && ["where partition =", "and partition ="].iter().any(|c| enclosed(rest).contains(c));
            if !bare && !equal.iter().any(|equal| sql.contains(equal)) {
                return Some(format!("{reference}{rest}"));
            }
        }
    }
    None
}

#[test]
fn every_statement_names_the_partition_of_every_table_that_it_touches() {
    for Sql { from, text } in every_sql() {
        for table in tables().keys() {
            if let Some(reference) = without_partition(&text, table) {
                panic!("{from} does not name the partition: {reference}");
            }
        }
    }
}

#[test]
fn a_statement_without_its_partition_is_found() {
    for wrong in [
        "select id from event where position = $1",
        "select id from event as e where partition = $1",
        "select 1 from log_head where partition = $1 and exists (select from event where id = $2)",
        "select 1 from log_head join event on event.id = $1 where log_head.partition = $2",
        "update event set id = $1 where id = $2",
        "insert into event (id, partition) select $1, $2",
        "delete from event where id = $1",
        "select e.partition from event as e where e.id = $1",
    ] {
        assert!(without_partition(wrong, "event").is_some(), "{wrong}");
    }
    for right in [
        "select id from event where partition = $1",
        "select id from event as e where e.partition = $1",
        "select id from events",
        "insert into event (partition, id) select $1, $2",
        "update event set id = $1 where id = $2 and partition = $3",
    ] {
        assert!(without_partition(right, "event").is_none(), "{right}");
    }
}

#[test]
fn no_statement_needs_what_does_not_work_on_many_nodes() {
    for Sql { from, text } in every_sql() {
        let words = words(&text);
        for (word, why) in FORBIDDEN {
            assert!(!words.contains(word), "{from} holds {word}: {why}");
        }
        assert!(!words.iter().any(|word| word.contains("advisory")), "{from} takes an advisory lock");
    }
}

/// Statements over several partitions: nobody waits for them, they lock nothing, and whoever sends them reads everything.
const OVER_ALL: &[&str] = &["src/event_store/receipts.sql", "src/read_model/source.rs"];

#[test]
fn every_statement_is_of_one_partition_and_every_lock_with_it() {
    for Sql { from, text } in every_sql() {
        let over_all = ["partition = any", "partition in (", "partition <", "partition >", "partition between"];
        let is_over_all = over_all.iter().any(|several| text.contains(several));
        assert!(!is_over_all || OVER_ALL.contains(&from.as_str()) || is_layout(&from), "{from}: {text}");
        let locks = ["for update", "for no key update", "for share", "for key share"];
        if locks.iter().any(|lock| text.contains(lock)) {
            let of_one = ["partition = $1", "partition = p_partition"];
            assert!(of_one.iter().any(|one| text.contains(one)), "{from} locks rows of several partitions: {text}");
        }
    }
}

/// The number of partitions itself is checked with a range.
fn is_layout(from: &str) -> bool {
    from == "migrations/0007_partitions.sql"
}

#[test]
fn nothing_is_inserted_within_a_common_table_expression() {
    for Sql { from, text } in every_sql() {
        let begins_with =
            |rest: &str| ["insert", "update", "delete"].iter().any(|verb| rest.trim_start().starts_with(verb));
        let parts = ["as (", "as materialized (", "as not materialized ("];
        let writes = parts.iter().any(|part| text.split(part).skip(1).any(begins_with));
        assert!(!writes, "{from}: {text}");
    }
}

/// Two releases work on one database while one follows the other, so a migration adds, and what is no longer needed goes with
/// the release after the one that needed it last. This loosens what the release before relied on for nothing.
const LOOSENED: &[(&str, &str)] = &[("migrations/0003_generations_and_history.sql", "drop constraint")];
/// Whoever builds an index holds up all who write to its table. These were there before the first release.
const INDEXED_LATER: &[&str] = &["migrations/0003_generations_and_history.sql", "migrations/0004_audit_trail.sql"];

#[test]
fn a_migration_takes_nothing_away_from_the_release_before() {
    let taken = ["drop ", "rename ", "alter column ", "set not null", "truncate table", "delete from", "revoke "];
    for Sql { from, text } in every_sql().into_iter().filter(|sql| sql.from.starts_with("migrations/")) {
        for what in taken {
            let known = LOOSENED.iter().any(|(file, loosened)| *file == from && loosened.starts_with(what));
            assert!(!text.contains(what) || known, "{from} takes away: {what}");
        }
        for (at, _) in text.match_indices(" index ") {
            let table = words(text[at..].split_once(" on ").unwrap().1)[0];
            let is_new = text.contains(&format!("create table {table} ("));
            assert!(is_new || INDEXED_LATER.contains(&from.as_str()), "{from} holds up who writes to {table}");
        }
        // Rows that the release before goes on inserting say nothing of a new column.
        for (at, _) in text.match_indices("add column ") {
            let column = &text[at..at + text[at..].find([',', ';']).unwrap()];
            assert!(!column.contains("not null") || column.contains("default"), "{from}: {column}");
        }
    }
}

#[test]
fn only_the_append_writes_events_and_nobody_changes_them() {
    for Sql { from, text } in every_sql() {
        for change in ["update event ", "delete from event", "truncate event", "truncate table"] {
            assert!(!text.contains(change), "{from}: {text}");
        }
        if text.contains("insert into event ") {
            match from.as_str() {
                "migrations/0001_event_store.sql" => assert!(text.contains("create function append_batch")),
                // What comes from another log, before this one is served.
                other => assert_eq!(other, "src/event_store/append_recorded.sql"),
            }
        }
    }
}
