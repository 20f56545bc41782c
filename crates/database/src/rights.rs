//! The role of the service and its rights: granting them, checking them, and why a user cannot do either.

use sqlx::{Connection, PgConnection, query_scalar, raw_sql};

use crate::schema::Error;
use passbook_event_store::sqlstate;

/// The statements that create the service role and grant its rights.
const GRANTS: &str = include_str!("grants.sql");

/// Grants in one transaction behind a lock: concurrent grants fail when they update the same catalog rows.
pub(crate) async fn grant(connection: &mut PgConnection) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    raw_sql("LOCK TABLE _sqlx_migrations IN SHARE ROW EXCLUSIVE MODE").execute(&mut *transaction).await?;
    raw_sql(GRANTS).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// Whether the service role exists and has all its rights. A dump of a database does not contain the role, and an interrupted
/// migration may not have granted the rights.
pub(crate) async fn is_granted(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let (names, rights): (Vec<_>, Vec<_>) = granted().unzip();
    query_scalar(
        "SELECT EXISTS (
             SELECT FROM pg_roles AS service
             WHERE rolname = 'passbook_service' AND NOT EXISTS (
                 SELECT FROM unnest($1::text[], $2::text[]) AS granted(name, rights)
                 WHERE NOT coalesce(
                     CASE rights
                         WHEN 'EXECUTE' THEN has_function_privilege(service.oid, to_regproc(name), rights)
                         ELSE has_table_privilege(service.oid, to_regclass(name), rights)
                     END,
                     true
                 )
             )
         )",
    )
    .bind(names)
    .bind(rights)
    .fetch_one(connection)
    .await
}

/// Whether the service role may use the schema of the tables. GRANT by a user without that right is a warning only.
pub(crate) async fn can_use_schema(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let can_use = "SELECT has_schema_privilege('passbook_service', current_schema(), 'USAGE')";
    query_scalar(can_use).fetch_one(connection).await
}

/// Returns each pair of a table or function and a right in [`GRANTS`].
fn granted() -> impl Iterator<Item = (&'static str, &'static str)> {
    let statements = GRANTS.split(';').map(str::trim);
    let grants =
        statements.filter_map(|statement| statement.strip_prefix("GRANT ")?.strip_suffix(" TO passbook_service"));
    let grants = grants.filter_map(|grant| grant.split_once(" ON "));
    grants.flat_map(|(rights, names)| {
        let names = names.trim_start_matches("FUNCTION ").split(',').map(str::trim);
        names.flat_map(move |name| rights.split(", ").map(move |right| (name, right)))
    })
}

/// Whether this user owns the tables or, if there are none, can create them.
pub(crate) async fn owns(connection: &mut PgConnection) -> sqlx::Result<bool> {
    query_scalar(
        "SELECT coalesce(
             (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('log_head')),
             has_schema_privilege(current_schema(), 'CREATE'),
             false
         )",
    )
    .fetch_one(connection)
    .await
}

async fn has_tables(connection: &mut PgConnection) -> sqlx::Result<bool> {
    query_scalar("SELECT to_regclass('log_head') IS NOT NULL").fetch_one(connection).await
}

/// The name of the user as SQL takes it.
pub(crate) async fn current_user(connection: &mut PgConnection) -> sqlx::Result<String> {
    query_scalar("SELECT quote_ident(current_user)").fetch_one(connection).await
}

/// The schema in which a table would be created, as SQL takes it; `None` if no schema of the search path exists.
async fn current_schema(connection: &mut PgConnection) -> sqlx::Result<Option<String>> {
    query_scalar("SELECT quote_ident(current_schema())").fetch_one(connection).await
}

/// Whether the database refused a statement because a right or the role is missing.
pub(crate) fn is_denied(error: &sqlx::Error) -> bool {
    // insufficient_privilege, or invalid_parameter_value: the role does not exist
    matches!(sqlstate(error).as_ref(), "42501" | "22023")
}

/// Why this user cannot migrate the schema.
pub(crate) async fn why_not_owner(connection: &mut PgConnection) -> sqlx::Result<Error> {
    let user = current_user(connection).await?;
    if has_tables(connection).await? {
        return Ok(Error::NotOwner { user });
    }
    Ok(match current_schema(connection).await? {
        Some(schema) => Error::NoCreate { user, schema },
        None => Error::NoSchema { user },
    })
}

/// Why the role of the service did not get its rights from this user, which owns the tables.
pub(crate) async fn why_not_granted(connection: &mut PgConnection, error: sqlx::Error) -> sqlx::Result<Error> {
    if !is_denied(&error) {
        return Ok(error.into());
    }
    match raw_sql("SET ROLE passbook_service").execute(&mut *connection).await {
        Err(error) if is_denied(&error) => return why_no_role(connection).await,
        taken => {
            taken?;
        }
    }
    raw_sql("RESET ROLE").execute(&mut *connection).await?;
    match can_use_schema(connection).await? {
        true => Ok(Error::NotGrantable(error)),
        false => no_usage(connection).await,
    }
}

pub(crate) async fn no_usage(connection: &mut PgConnection) -> sqlx::Result<Error> {
    let user = current_user(connection).await?;
    let schema = current_schema(connection).await?.unwrap_or_default();
    Ok(Error::NoUsage { user, schema })
}

/// Why this user cannot take the role of the service.
pub(crate) async fn why_no_role(connection: &mut PgConnection) -> sqlx::Result<Error> {
    let user = current_user(connection).await?;
    let is_member = "SELECT pg_has_role(oid, 'MEMBER') FROM pg_roles WHERE rolname = 'passbook_service'";
    Ok(match query_scalar(is_member).fetch_optional(connection).await? {
        None => Error::NoRole { user },
        Some(false) => Error::NotGranted { user },
        // Since Postgres 16 a membership can exclude SET ROLE, and another GRANT without options leaves it as it is.
        Some(true) => Error::NotSettable { user },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_grant_of_the_script_is_checked() {
        let granted: Vec<_> = granted().collect();
        for right in [
            ("delete_old_keys", "EXECUTE"),
            ("_sqlx_migrations", "SELECT"),
            ("reversal", "INSERT"),
            ("relay", "UPDATE"),
            ("account_view", "SELECT"),
            ("bank_total", "DELETE"),
        ] {
            assert!(granted.contains(&right), "{right:?} is not in {granted:?}");
        }
        let statements = GRANTS.matches("TO passbook_service;").count();
        assert!(granted.len() > statements && statements >= 9, "{statements} statements, {granted:?}");
    }
}
