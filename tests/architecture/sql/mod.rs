//! Every SQL text of the project, parsed: the statements of the service, the functions as they are after all migrations, and the
//! migrations themselves.

mod broken_texts;
mod definers;
mod exceptions;
mod keys;
mod migrations;
mod partition;
mod plpgsql;
mod rules;
mod shape;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::LazyLock,
};

use sqlparser::{
    ast::{ObjectName, Statement},
    dialect::PostgreSqlDialect,
    parser::{Parser, ParserError},
    tokenizer::{Token, Tokenizer, Whitespace},
};

use crate::sources::{files, literals, name, root, sources};

/// What sends a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Migration,
    /// The body of a function, as it is after all migrations.
    Function,
    Service,
}

/// A parsed statement.
struct Sql {
    /// The file or function that contains it, and its text with single spaces.
    place: String,
    origin: Origin,
    tree: Statement,
}

/// A function as it is after all migrations.
#[derive(Clone)]
struct Function {
    body: String,
    /// Whether its statements are planned once for all values of their parameters.
    is_generic: bool,
}

/// What the migrations create.
struct Schema {
    tables: BTreeSet<String>,
    functions: BTreeMap<String, Function>,
    /// The functions whose statements read or write tables.
    reading: BTreeSet<String>,
}

/// All SQL of the project.
struct Corpus {
    statements: Vec<Sql>,
    schema: Schema,
}

static CORPUS: LazyLock<Corpus> = LazyLock::new(|| {
    let mut found = Collector::default();
    let mut functions = BTreeMap::new();
    for path in files("migrations", "sql") {
        let script = fs::read_to_string(&path).unwrap();
        for tokens in split(&script) {
            change_functions(&tokens, &mut functions);
            found.add(&name(&path), Origin::Migration, tokens);
        }
    }
    for (function, Function { body, .. }) in &functions {
        for tokens in plpgsql::statements(body) {
            found.add(&format!("function {function}"), Origin::Function, tokens);
        }
    }
    let tables = found.statements.iter().filter_map(|sql| match &sql.tree {
        Statement::CreateTable(table) => Some(last_name(&table.name)),
        _ => None,
    });
    let tables = tables.collect();
    let reading = reading_functions(&found.statements, &tables);
    found.add_service();
    assert!(found.unparsed.is_empty(), "the parser does not know these texts:\n{}", found.unparsed.join("\n"));
    assert!(found.statements.len() > 200, "only {} statements were found", found.statements.len());
    Corpus { statements: found.statements, schema: Schema { tables, functions, reading } }
});

/// The beginnings of statements that the parser does not know. They were read by hand.
const UNPARSED: &[&str] = &[
    // Names and values in braces. `passbook migrate` and the first start of an embedded server send them.
    "SET LOCAL citus.shard_count = {shards}",
    "ALTER FUNCTION {function} RESET plan_cache_mode",
    "ALTER ROLE {} SET {name} = '{value}'",
    // SET COMPRESSION
    "ALTER TABLE snapshot ALTER state SET COMPRESSION lz4",
    "ALTER TABLE account_transaction ALTER holds SET COMPRESSION lz4",
    "ALTER TABLE account_view ALTER holds SET COMPRESSION lz4",
    // DROP INDEX CONCURRENTLY. `passbook migrate` sends it after the migrations.
    "DROP INDEX CONCURRENTLY IF EXISTS idempotency_key_recorded_at",
    "DROP INDEX CONCURRENTLY IF EXISTS account_view_",
    "DROP INDEX CONCURRENTLY IF EXISTS account_transaction_reference_folded",
    // A name in braces. The migration chooses the collation of the function.
    "CREATE INDEX CONCURRENTLY account_view_id_trigrams",
    // FETCH FIRST (…) ROWS WITH TIES. `passbook copy` reads the keys of one partition.
    "SELECT caller, key, fingerprint, receipt::text AS \"receipt!\", recorded_at FROM ( SELECT *, sum(bytes)",
];

#[derive(Default)]
struct Collector {
    statements: Vec<Sql>,
    /// What the parser says about the texts that it does not know.
    unparsed: Vec<String>,
}

impl Collector {
    /// Adds the statements of the service and of its crates.
    fn add_service(&mut self) {
        for path in sources("sql") {
            for tokens in split(&fs::read_to_string(&path).unwrap()) {
                let mut functions = BTreeMap::new();
                change_functions(&tokens, &mut functions);
                for Function { body, .. } in functions.values() {
                    let statements = plpgsql::statements(body).into_iter();
                    statements.for_each(|tokens| self.add(&name(&path), Origin::Function, tokens));
                }
                self.add(&name(&path), Origin::Service, tokens);
            }
        }
        // The SQL of the tests may rely on more: it reads whole logs, and it damages them.
        let of_tests = root().join("crates/testkit");
        for path in sources("rs").into_iter().filter(|path| !path.starts_with(&of_tests)) {
            let texts = literals(&fs::read_to_string(&path).unwrap());
            for tokens in texts.iter().filter(|text| is_statement(text)).flat_map(|text| split(text)) {
                self.add(&name(&path), Origin::Service, tokens);
            }
        }
        // A statement of sqlx's macros can consist of several literals.
        let known: BTreeSet<String> = self.statements.iter().map(|sql| text_of(sql).to_owned()).collect();
        for path in files(".sqlx", "json") {
            let described: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            let statements = split(described["query"].as_str().unwrap()).into_iter();
            for tokens in statements.filter(|tokens| !known.contains(&text(tokens))) {
                self.add(&name(&path), Origin::Service, tokens);
            }
        }
    }

    /// Adds a statement, or the statements of a DO block.
    fn add(&mut self, from: &str, origin: Origin, tokens: Vec<Token>) {
        if plpgsql::word(&tokens[0]) == "DO" {
            let body = dollar_quoted(&tokens).expect("a DO block has a body");
            plpgsql::statements(&body).into_iter().for_each(|tokens| self.add(from, origin, tokens));
            return;
        }
        let text = text(&tokens);
        let place = format!("{from}: {text}");
        match tree_of(&tokens).or_else(|error| tree_of(&with_condition(&tokens)).map_err(|_| error)) {
            Ok(tree) => self.statements.push(Sql { place, origin, tree }),
            Err(_) if UNPARSED.iter().any(|unparsed| text.starts_with(unparsed)) => {}
            Err(error) => self.unparsed.push(format!("{place}: {error}")),
        }
    }
}

fn tree_of(tokens: &[Token]) -> Result<Statement, ParserError> {
    let mut parser = Parser::new(&PostgreSqlDialect {}).with_tokens(tokens.to_vec());
    parser.parse_statement().and_then(|tree| parser.expect_token(&Token::EOF).map(|_| tree))
}

/// The same statement with `WHERE true` before `ON CONFLICT`. Without it the parser takes `ON` for the name of the last column, if
/// the SELECT has no FROM.
fn with_condition(tokens: &[Token]) -> Vec<Token> {
    let words: Vec<String> = tokens.iter().map(plpgsql::word).collect();
    let is_conflict = |at: &usize| {
        words[*at] == "ON"
            && words[at + 1..].iter().find(|word| !word.is_empty()).is_some_and(|word| word == "CONFLICT")
    };
    let Some(at) = (0..words.len()).find(is_conflict) else { return tokens.to_vec() };
    let space = Token::Whitespace(Whitespace::Space);
    let condition = [Token::make_keyword("WHERE"), space.clone(), Token::make_keyword("true"), space];
    [&tokens[..at], &condition, &tokens[at..]].concat()
}

/// The statements of a text in a test.
fn parsed(text: &str, origin: Origin) -> Vec<Sql> {
    let mut found = Collector::default();
    split(text).into_iter().for_each(|tokens| found.add("a test", origin, tokens));
    assert!(found.unparsed.is_empty(), "{:#?}", found.unparsed);
    found.statements
}

/// The text of a statement, without its place.
fn text_of(sql: &Sql) -> &str {
    sql.place.split_once(": ").unwrap().1
}

/// Whether a string literal is SQL.
fn is_statement(literal: &str) -> bool {
    let mut words = literal.split_whitespace();
    let verbs = [
        "SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "CREATE", "ALTER", "DROP", "TRUNCATE", "LOCK", "SET", "RESET",
        "SHOW", "COPY", "GRANT", "REVOKE", "VACUUM", "ANALYZE", "REINDEX", "LISTEN", "NOTIFY", "VALUES", "DECLARE",
        "FETCH", "EXPLAIN", "CALL", "DO",
    ];
    words.next().is_some_and(|first| verbs.contains(&first)) && words.next().is_some()
}

/// The tokens of each statement of a script, with single spaces in place of whitespace and comments.
fn split(script: &str) -> Vec<Vec<Token>> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, script).tokenize();
    let tokens = tokens.unwrap_or_else(|error| panic!("{error}: {script}"));
    let statements = tokens.split(|token| *token == Token::SemiColon).map(|tokens| {
        let first = tokens.iter().position(|token| !is_space(token)).unwrap_or(tokens.len());
        tokens[first..].to_vec()
    });
    statements.filter(|tokens| !tokens.is_empty()).collect()
}

fn is_space(token: &Token) -> bool {
    matches!(token, Token::Whitespace(_))
}

/// A text without comments and with single spaces.
fn text(tokens: &[Token]) -> String {
    let pieces = tokens.iter().map(|token| if is_space(token) { " ".to_owned() } else { token.to_string() });
    pieces.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn dollar_quoted(tokens: &[Token]) -> Option<String> {
    tokens.iter().find_map(|token| match token {
        Token::DollarQuotedString(body) => Some(body.value.clone()),
        _ => None,
    })
}

/// Applies CREATE FUNCTION and ALTER FUNCTION.
fn change_functions(tokens: &[Token], functions: &mut BTreeMap<String, Function>) {
    let text = text(tokens);
    let header = text.split("$$").next().unwrap_or_default().replace("CREATE OR REPLACE ", "CREATE ");
    let words: Vec<&str> = header.split([' ', '(']).collect();
    match (words[0], words.get(1), dollar_quoted(tokens)) {
        ("CREATE", Some(&"FUNCTION"), body) => {
            let body = body.expect("a function has a dollar-quoted body");
            let is_generic = header.contains("force_generic_plan");
            functions.insert(words[2].to_owned(), Function { body, is_generic });
        }
        ("ALTER", Some(&"FUNCTION"), _) => {
            let function = functions.get_mut(words[2]).unwrap_or_else(|| panic!("{text} changes no function"));
            if header.contains("plan_cache_mode") || header.contains("RESET ALL") {
                function.is_generic = header.contains("force_generic_plan");
            }
        }
        _ => {}
    }
}

/// The functions that read tables, also through other functions.
fn reading_functions(statements: &[Sql], tables: &BTreeSet<String>) -> BTreeSet<String> {
    let mut reading = BTreeSet::new();
    loop {
        let known = reading.len();
        for sql in statements.iter().filter(|sql| sql.origin == Origin::Function) {
            let shape = shape::Shape::of(&sql.tree);
            let reads = |name: &String| tables.contains(name) || reading.contains(name);
            if shape.tables.iter().chain(&shape.functions).any(reads) {
                let function = sql.place.split_once(": ").unwrap().0;
                reading.insert(function.trim_start_matches("function ").to_owned());
            }
        }
        if reading.len() == known {
            return reading;
        }
    }
}

/// The name without its schema, in lower case.
fn last_name(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(|part| part.value.to_lowercase()).unwrap_or_default()
}
