//! Rules that the compiler and Cargo cannot check: which crates may be used where, and what SQL may rely on.
//!
//! Cargo checks the dependencies between the crates of the workspace. The SQL rules keep every statement valid on a log with
//! several partitions and on a Citus cluster, and every migration compatible with the previous release.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::LitStr;

/// Dependencies that a crate must not have.
const FORBIDDEN_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("domain", &["sqlx", "tokio", "axum", "futures-util", "nix", "clap", "tracing"]),
    ("event-store", &["axum", "clap", "utoipa"]),
    ("bank", &["axum", "clap"]),
    ("read-model", &["axum", "clap"]),
    ("audit", &["axum", "clap"]),
    ("repartition", &["axum", "clap"]),
    ("auth", &["sqlx", "axum", "clap"]),
    ("relay", &["axum", "clap", "utoipa"]),
    ("import", &["sqlx", "axum", "clap", "utoipa"]),
    ("database", &["axum", "clap", "utoipa"]),
    ("embedded-postgres", &["axum", "clap", "utoipa"]),
    ("telemetry", &["sqlx", "axum", "clap", "utoipa"]),
];

/// Code that the pure domain must not use: clocks, random ids, files, processes and the network.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "std::time",
    "std::thread",
    "std::process",
    "::now(",
    "now_v7",
    "new_v4",
];

/// Paths that HTTP handlers must not use: they call the write side and the read model, and never the log or its projections.
const BEHIND_HTTP: &[&str] = &[
    "sqlx::",
    "passbook_event_store::log",
    "passbook_event_store::reader",
    "passbook_event_store::import",
    "passbook_event_store::scan",
    "passbook_read_model::projector",
    "passbook_read_model::projection",
    "passbook_read_model::rebuilder",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a folder with this extension, sorted.
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

/// The sources of the service and of all crates, without their test folders.
fn sources(extension: &str) -> Vec<PathBuf> {
    let crates = files("crates", extension);
    let in_source =
        |path: &PathBuf| path.strip_prefix(root()).unwrap().components().nth(2).unwrap().as_os_str() == "src";
    files("src", extension).into_iter().chain(crates.into_iter().filter(in_source)).collect()
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// A source without its comment lines.
fn code(path: &Path) -> String {
    let source = fs::read_to_string(path).unwrap();
    source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every string literal of a source, inside of macros as well.
fn literals(tokens: TokenStream, found: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => literals(group.stream(), found),
            TokenTree::Literal(literal) => {
                let text = syn::parse2::<LitStr>(TokenTree::Literal(literal).into());
                found.extend(text.map(|text| text.value()));
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

#[test]
fn crates_do_not_depend_on_what_belongs_to_others() {
    for (package, forbidden) in FORBIDDEN_DEPENDENCIES {
        let manifest = fs::read_to_string(root().join("crates").join(package).join("Cargo.toml")).unwrap();
        for dependency in *forbidden {
            let listed =
                |line: &str| line.starts_with(&format!("{dependency}.")) || line.starts_with(&format!("{dependency} "));
            assert!(!manifest.lines().any(listed), "crates/{package} depends on {dependency}");
        }
    }
    let packages = fs::read_dir(root().join("crates")).unwrap().count();
    assert!(packages >= FORBIDDEN_DEPENDENCIES.len(), "only {packages} crates were found");
}

#[test]
fn the_domain_has_no_clock_no_random_ids_and_no_io() {
    for path in files("crates/domain/src", "rs") {
        for impure in IMPURE {
            assert!(!code(&path).contains(impure), "{} uses {impure}", name(&path));
        }
    }
}

#[test]
fn http_handlers_do_not_reach_behind_the_write_side_and_the_queries() {
    for path in files("src/http", "rs") {
        for behind in BEHIND_HTTP {
            assert!(!code(&path).contains(behind), "{} uses {behind}", name(&path));
        }
    }
}

#[test]
fn every_source_file_begins_with_its_responsibility() {
    for path in sources("rs") {
        let source = fs::read_to_string(&path).unwrap();
        let first = source.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! ") && first.len() > 10, "{} begins with {first:?}", name(&path));
    }
}

#[test]
fn string_literals_are_found_inside_macros_and_unescaped() {
    let source = r##"fn f() { query!("SELECT \"a\" \
        FROM b", r#"raw "x""#, 'c', b"bytes") }"##;
    let mut found = Vec::new();
    literals(source.parse().unwrap(), &mut found);
    assert_eq!(found, [r#"SELECT "a" FROM b"#, r#"raw "x""#]);
}

/// Words that no SQL may contain, each with the reason.
const FORBIDDEN: &[(&str, &str)] = &[
    ("serial", "positions come from `log_head`"),
    ("smallserial", "positions come from `log_head`"),
    ("bigserial", "positions come from `log_head`"),
    ("sequence", "a sequence has holes and becomes visible out of order"),
    ("nextval", "a sequence has holes and becomes visible out of order"),
    ("identity", "a sequence has holes and becomes visible out of order"),
    ("listen", "nothing may depend on notifications"),
    ("notify", "NOTIFY in a transaction serializes all commits"),
    ("pg_notify", "NOTIFY in a transaction serializes all commits"),
    ("offset", "pages continue after a key"),
    ("references", "a foreign key can cross partitions"),
];

/// A statement or a file of statements: without comments, in lower case, with single spaces.
struct Sql {
    /// The file that holds it.
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
    for path in sources("sql").into_iter().chain(files("migrations", "sql")) {
        all.push(Sql { from: name(&path), text: without_comments(&fs::read_to_string(&path).unwrap()) });
    }
    // The SQL of the tests may rely on more: it reads whole logs, and it damages them.
    let of_tests = root().join("crates/testkit");
    for path in sources("rs").into_iter().filter(|path| !path.starts_with(&of_tests)) {
        let mut texts = Vec::new();
        literals(fs::read_to_string(&path).unwrap().parse().unwrap(), &mut texts);
        let statements = texts.iter().filter(|text| is_statement(text));
        all.extend(statements.map(|text| Sql { from: name(&path), text: without_comments(text) }));
    }
    assert!(all.len() > 20, "only {} statements were found", all.len());
    all
}

fn words(sql: &str) -> Vec<&str> {
    sql.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect()
}

/// The tables of the migrations, each with its column definitions.
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

/// The text up to the end of its statement or of its parentheses.
fn enclosed(text: &str) -> &str {
    let mut depth = 0;
    let end = text.find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth < 0 || (depth == 0 && c == ';')
    });
    &text[..end.unwrap_or(text.len())]
}

#[test]
fn every_table_and_every_key_begins_with_the_partition() {
    for (table, columns) in tables() {
        assert!(columns.starts_with("partition smallint"), "{table}: {columns}");
        for key in ["primary key (", "unique ("] {
            for (at, _) in columns.match_indices(key) {
                assert!(columns[at + key.len()..].starts_with("partition"), "{table}: {}", &columns[at..]);
            }
        }
    }
    for Sql { from, text } in every_sql() {
        for (at, start) in text.match_indices(" index ").filter(|_| !text.starts_with("drop index ")) {
            let columns = text[at + start.len()..].split_once(" (").unwrap().1;
            assert!(columns.starts_with("partition,"), "{from}: an index begins with {columns}");
        }
    }
}

/// The first reference to `table` in `sql` that is not restricted to one partition.
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
fn every_statement_names_the_partition_of_every_table() {
    for Sql { from, text } in every_sql() {
        for table in tables().keys() {
            if let Some(reference) = without_partition(&text, table) {
                panic!("{from} does not restrict the partition: {reference}");
            }
        }
    }
}

#[test]
fn a_statement_without_a_partition_is_detected() {
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
fn no_statement_uses_what_fails_on_several_nodes() {
    for Sql { from, text } in every_sql() {
        let words = words(&text);
        for (word, why) in FORBIDDEN {
            assert!(!words.contains(word), "{from} contains {word}: {why}");
        }
        assert!(!words.iter().any(|word| word.contains("advisory")), "{from} takes an advisory lock");
    }
}

/// Files with statements over several partitions. These lock nothing, and only background work sends them.
const OVER_ALL: &[&str] = &["crates/read-model/src/query_router.rs"];

#[test]
fn every_statement_and_every_lock_is_within_one_partition() {
    for Sql { from, text } in every_sql() {
        let over_all = ["partition = any", "partition in (", "partition <", "partition >", "partition between"];
        let is_over_all = over_all.iter().any(|several| text.contains(several));
        assert!(!is_over_all || OVER_ALL.contains(&from.as_str()) || is_partition_count(&from), "{from}: {text}");
        let locks = ["for update", "for no key update", "for share", "for key share"];
        if locks.iter().any(|lock| text.contains(lock)) {
            let of_one = ["partition = $1", "partition = p_partition"];
            assert!(of_one.iter().any(|one| text.contains(one)), "{from} locks rows of several partitions: {text}");
        }
    }
}

/// The number of partitions is checked with a range.
fn is_partition_count(from: &str) -> bool {
    from == "migrations/0007_partitions.sql"
}

#[test]
fn no_common_table_expression_writes() {
    for Sql { from, text } in every_sql() {
        let begins_with =
            |rest: &str| ["insert", "update", "delete"].iter().any(|verb| rest.trim_start().starts_with(verb));
        let parts = ["as (", "as materialized (", "as not materialized ("];
        let writes = parts.iter().any(|part| text.split(part).skip(1).any(begins_with));
        assert!(!writes, "{from}: {text}");
    }
}

/// Two releases use one database during an upgrade. So a migration only adds, and a later release removes what no running
/// release needs. The exceptions: a constraint that the previous release did not rely on, and the body of a function that deletes
/// old keys when it is called.
const LOOSENED: &[(&str, &str)] = &[
    ("migrations/0003_generations_and_history.sql", "drop constraint"),
    ("migrations/0015_key_retention.sql", "delete from idempotency_key"),
];
/// Building an index blocks all writes to its table. The first two migrations are older than the first release. The last one builds
/// indexes of a view: only the projector waits, and commands go on.
const INDEXED_LATER: &[&str] = &[
    "migrations/0003_generations_and_history.sql",
    "migrations/0004_audit_trail.sql",
    "migrations/0017_account_list_indexes.sql",
];

#[test]
fn a_migration_removes_nothing_that_the_previous_release_uses() {
    let removals = ["drop ", "rename ", "alter column ", "set not null", "truncate table", "delete from", "revoke "];
    for Sql { from, text } in every_sql().into_iter().filter(|sql| sql.from.starts_with("migrations/")) {
        for removal in removals {
            let known = LOOSENED.iter().any(|(file, loosened)| *file == from && loosened.starts_with(removal));
            assert!(!text.contains(removal) || known, "{from} contains: {removal}");
        }
        for (at, _) in text.match_indices(" index ") {
            let table = words(text[at..].split_once(" on ").unwrap().1)[0];
            let is_new = text.contains(&format!("create table {table} ("));
            assert!(is_new || INDEXED_LATER.contains(&from.as_str()), "{from} blocks writes to {table}");
        }
        // The previous release inserts rows without the new column.
        for (at, _) in text.match_indices("add column ") {
            let column = &text[at..at + text[at..].find([',', ';']).unwrap()];
            assert!(!column.contains("not null") || column.contains("default"), "{from}: {column}");
        }
    }
}

#[test]
fn only_the_append_inserts_events_and_no_statement_changes_them() {
    for Sql { from, text } in every_sql() {
        for change in ["update event ", "delete from event", "truncate event", "truncate table"] {
            assert!(!text.contains(change), "{from}: {text}");
        }
        if text.contains("insert into event ") {
            match from.as_str() {
                "migrations/0001_event_store.sql" => assert!(text.contains("create function append_batch")),
                "migrations/0013_one_outcome_and_final_moments.sql"
                | "migrations/0015_key_retention.sql"
                | "migrations/0020_cheaper_append.sql" => {
                    assert!(text.contains("create or replace function append_batch"));
                }
                "migrations/0018_holds.sql" => {
                    assert!(text.contains("create function append_batch_with_reversals"));
                }
                // The import of another log, before this one is served.
                other => assert_eq!(other, "crates/event-store/src/append_imported.sql"),
            }
        }
    }
}
