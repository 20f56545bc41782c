//! Splits the body of a PL/pgSQL function into its SQL statements. Conditions and assigned values become SELECT statements.

use sqlparser::{
    dialect::PostgreSqlDialect,
    tokenizer::{Token, Tokenizer, Whitespace},
};

use super::is_space;

/// What a body is made of.
enum Part {
    /// A statement without its semicolon.
    Statement(Vec<Token>),
    /// IF, ELSIF, WHILE, FOR or FOREACH up to its THEN or LOOP.
    Condition(Vec<Token>),
}

/// The SQL statements of a body, each as its tokens.
pub fn statements(body: &str) -> Vec<Vec<Token>> {
    // Lines such as `#variable_conflict use_column` are no SQL.
    let body = body.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let tokens =
        Tokenizer::new(&PostgreSqlDialect {}, &body).tokenize().unwrap_or_else(|error| panic!("{error}: {body}"));
    parts(&tokens).into_iter().filter_map(sql).collect()
}

fn parts(tokens: &[Token]) -> Vec<Part> {
    let mut found = Vec::new();
    let mut current: Vec<Token> = Vec::new();
    // Whether the part ends at THEN or LOOP.
    let mut is_condition = false;
    // The open CASE expressions, whose WHEN, THEN, ELSE and END belong to them.
    let mut cases = 0;
    for token in tokens {
        let is_first = current.is_empty();
        if is_first && is_space(token) {
            continue;
        }
        let word = word(token);
        cases += i32::from(word == "CASE") - i32::from(word == "END" && cases > 0);
        let ends_condition = is_condition && cases == 0 && matches!(word.as_str(), "THEN" | "LOOP");
        let ends_statement = *token == Token::SemiColon;
        match word.as_str() {
            "BEGIN" | "DECLARE" | "ELSE" | "LOOP" | "EXCEPTION" if is_first => {}
            _ if ends_condition => found.push(Part::Condition(std::mem::take(&mut current))),
            _ if ends_statement => found.push(Part::Statement(std::mem::take(&mut current))),
            "IF" | "ELSIF" | "WHILE" | "WHEN" | "FOR" | "FOREACH" if is_first => {
                is_condition = true;
                current.push(token.clone());
            }
            _ => current.push(token.clone()),
        }
        is_condition &= !ends_condition && !ends_statement;
    }
    found
}

/// A word that is not quoted, in upper case; empty for other tokens.
pub fn word(token: &Token) -> String {
    match token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
        _ => String::new(),
    }
}

/// The expression that computes the text of a statement. Its values follow after USING.
fn dynamic(tokens: &[Token]) -> Vec<Token> {
    select(tokens.split(|token| word(token) == "USING").next().unwrap_or_default())
}

/// The SQL of a part; `None` if it has none.
fn sql(part: Part) -> Option<Vec<Token>> {
    let tokens = match part {
        Part::Condition(tokens) => {
            return match word(&tokens[0]).as_str() {
                // An exception handler names errors.
                "WHEN" => None,
                "FOR" => Some(after(&tokens, 3).to_vec()),
                "FOREACH" => Some(select(after(&tokens, 4))),
                _ => Some(select(after(&tokens, 1))),
            };
        }
        Part::Statement(tokens) => tokens,
    };
    if let Some(at) = tokens.iter().position(|token| *token == Token::Assignment) {
        return Some(select(&tokens[at + 1..]));
    }
    let words: Vec<String> = tokens.iter().filter(|token| !is_space(token)).map(word).collect();
    let second = words.get(1).map(String::as_str);
    match (words[0].as_str(), second) {
        ("RETURN", Some("QUERY")) if words.get(2).is_some_and(|word| word == "EXECUTE") => {
            Some(dynamic(after(&tokens, 3)))
        }
        ("RETURN", Some("QUERY")) => Some(after(&tokens, 2).to_vec()),
        ("EXECUTE", _) => Some(dynamic(after(&tokens, 1))),
        ("RETURN", None | Some("NEXT")) => None,
        ("RETURN" | "PERFORM", _) => Some(select(after(&tokens, 1))),
        ("SELECT" | "INSERT" | "UPDATE" | "DELETE" | "WITH", _) => Some(without_into(&tokens)),
        ("ALTER" | "CREATE" | "DROP" | "GRANT" | "REVOKE" | "TRUNCATE" | "LOCK" | "SET" | "NOTIFY", _) => Some(tokens),
        ("RAISE" | "NULL" | "GET" | "END" | "EXIT" | "CONTINUE", _) => None,
        // A declaration without a value.
        _ => None,
    }
}

/// The tokens after this number of words.
fn after(tokens: &[Token], words: usize) -> &[Token] {
    let at =
        tokens.iter().enumerate().filter(|(_, token)| !is_space(token)).nth(words).map_or(tokens.len(), |(at, _)| at);
    &tokens[at..]
}

fn select(expression: &[Token]) -> Vec<Token> {
    [&[Token::make_keyword("SELECT"), Token::Whitespace(Whitespace::Space)], expression].concat()
}

/// Removes `INTO [STRICT] a, b`, except that of INSERT INTO.
fn without_into(tokens: &[Token]) -> Vec<Token> {
    let words: Vec<usize> = (0..tokens.len()).filter(|at| !is_space(&tokens[*at])).collect();
    let token = |number: usize| words.get(number).map_or(&Token::EOF, |at| &tokens[*at]);
    let is_target = |number: &usize| word(token(*number)) == "INTO" && word(token(*number - 1)) != "INSERT";
    let Some(into) = (1..words.len()).find(is_target) else { return tokens.to_vec() };
    let mut last = into + 1 + usize::from(word(token(into + 1)) == "STRICT");
    while matches!(token(last + 1), Token::Comma | Token::Period) {
        last += 2;
    }
    [&tokens[..words[into]], &tokens[words[last] + 1..]].concat()
}

#[test]
fn bodies_are_split_into_their_statements() {
    let body = "
        #variable_conflict use_column
        DECLARE
            head log_head%ROWTYPE;
            last bytea := coalesce(p_hashes[1], p_hash);
        BEGIN
            SELECT a, b INTO STRICT x, head.y FROM t WHERE c = 1 FOR UPDATE;
            IF CASE WHEN a THEN b ELSE c END THEN
                RETURN QUERY SELECT 1;
                RETURN;
            ELSIF NOT FOUND THEN
                PERFORM FROM t;
            ELSE
                INSERT INTO t (a) VALUES (1);
            END IF;
            WHILE low < high LOOP
                low := low + 1;
            END LOOP;
            FOREACH moment IN ARRAY p_times LOOP
                FOR found IN SELECT a FROM t LOOP
                    NULL;
                END LOOP;
            END LOOP;
            RAISE EXCEPTION 'a; b' USING ERRCODE = 'PB001';
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
        END";
    let found: Vec<String> = statements(body).iter().map(|tokens| super::text(tokens)).collect();
    assert_eq!(
        found,
        [
            "SELECT coalesce(p_hashes[1], p_hash)",
            "SELECT a, b FROM t WHERE c = 1 FOR UPDATE",
            "SELECT CASE WHEN a THEN b ELSE c END",
            "SELECT 1",
            "SELECT NOT FOUND",
            "SELECT FROM t",
            "INSERT INTO t (a) VALUES (1)",
            "SELECT low < high",
            "SELECT low + 1",
            "SELECT p_times",
            "SELECT a FROM t",
        ]
    );
}
