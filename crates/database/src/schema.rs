//! The schema and its rights. The owner of the tables migrates; the running service takes the role `passbook_service`, which can
//! append events and update views but cannot change or delete events.

use super::key_index;
use sqlx::{
    Connection, PgConnection,
    migrate::{Migrate, MigrateError, Migrator},
    query_scalar, raw_sql,
};

/// The migrations of this release. Missing ones are ignored: a newer release may have applied further migrations, which are
/// compatible with this release. [`lock`] takes the lock.
static MIGRATOR: Migrator = Migrator { ignore_missing: true, locking: false, ..sqlx::migrate!("../../migrations") };

/// The statements that create the service role and grant its rights.
const GRANTS: &str = include_str!("grants.sql");

/// The session setting that gives a connection the rights of the service role.
pub(super) const AS_SERVICE: (&str, &str) = ("role", "passbook_service");

/// The schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database schema could not be migrated: {0}")]
    Migration(#[from] MigrateError),
    #[error(
        "the database user {user} does not own Passbook's tables and cannot migrate them: set PASSBOOK_DATABASE_URL to the user \
         that owns them"
    )]
    NotOwner { user: String },
    #[error(
        "the database schema has version {found}, but this release needs {needed}: run `passbook migrate` with a \
         PASSBOOK_DATABASE_URL whose user owns the tables"
    )]
    Outdated { found: i64, needed: i64 },
    #[error(
        "the role passbook_service does not exist or is not granted, and the database user {user} cannot change that: run \
         `CREATE ROLE passbook_service; GRANT passbook_service TO {user};` as a superuser, and `passbook migrate` again"
    )]
    NoRole { user: String },
    #[error(
        "the database user {user} cannot take the role passbook_service: run `passbook migrate` as the owner of the tables, \
         and then `GRANT passbook_service TO {user};`"
    )]
    NotGranted { user: String },
    #[error("the version of the database schema could not be read: {0}")]
    Unreadable(#[from] sqlx::Error),
}

/// Applies the missing migrations and grants the service role its rights. A lock serializes instances that start together: the
/// others wait until the first has finished, however long its migrations take.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<(), Error> {
    if !owns(connection).await? {
        return Err(Error::NotOwner { user: current_user(connection).await? });
    }
    lock(connection).await?;
    // After an error the caller closes the connection, which releases the lock.
    MIGRATOR.run(&mut *connection).await?;
    let granted = grant(connection).await;
    connection.unlock().await?;
    match granted {
        // insufficient_privilege, or invalid_parameter_value: the role does not exist
        Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42501" | "22023")) => {
            Err(Error::NoRole { user: current_user(connection).await? })
        }
        // After the lock is released: the build waits for the statements of instances that wait for the lock.
        Ok(()) => Ok(key_index::build(connection).await?),
        Err(error) => Err(error.into()),
    }
}

/// Takes the advisory lock that sqlx uses for migrations. `lock_timeout` ends each attempt, so that the wait can be logged; it
/// still applies to the locks that a migration takes.
async fn lock(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let mut is_logged = false;
    loop {
        match connection.lock().await {
            // lock_not_available
            Err(MigrateError::Execute(sqlx::Error::Database(error))) if error.code().as_deref() == Some("55P03") => {
                if !std::mem::replace(&mut is_logged, true) {
                    tracing::warn!("another instance migrates the database; waiting until it has finished");
                }
            }
            locked => return locked,
        }
    }
}

/// Migrates if this user owns the tables and the schema, a right or an index is missing. Other users only check the schema.
pub(super) async fn ensure(connection: &mut PgConnection) -> Result<(), Error> {
    if owns(connection).await? {
        let is_complete = version(connection).await? >= needed()
            && is_granted(connection).await?
            && key_index::is_built(connection).await?;
        return if is_complete { Ok(()) } else { migrate(connection).await };
    }
    check(connection).await
}

/// Takes the service role and checks that the schema exists and is new enough.
pub(super) async fn check(connection: &mut PgConnection) -> Result<(), Error> {
    let needed = needed();
    if !is_migrated(connection).await? {
        return Err(Error::Outdated { found: 0, needed });
    }
    if raw_sql("SET ROLE passbook_service").execute(&mut *connection).await.is_err() {
        return Err(Error::NotGranted { user: current_user(connection).await? });
    }
    match version(connection).await? {
        found if found < needed => Err(Error::Outdated { found, needed }),
        _ => Ok(()),
    }
}

/// What a user finds in the database, without changing it.
#[derive(Debug)]
pub(super) struct State {
    /// The version of the schema; `None` if the user cannot read it.
    pub version: Option<i64>,
    /// The version that this release needs.
    pub needed: i64,
    /// The name of the user.
    pub user: String,
    /// Whether the user owns the tables and can migrate them.
    pub is_owner: bool,
    /// Whether the role of the service has all its rights, and the indexes that are built after the migrations exist.
    pub is_complete: bool,
    /// Why this release cannot use the schema.
    pub problem: Option<Error>,
}

/// Reads the state of the schema. The connection has the role of the service afterwards, if the user can take it.
pub(super) async fn state(connection: &mut PgConnection) -> Result<State, Error> {
    let user = current_user(connection).await?;
    let is_owner = owns(connection).await?;
    let is_complete = is_granted(connection).await? && key_index::is_built(connection).await?;
    let problem = check(connection).await.err();
    let version = match &problem {
        None => Some(version(connection).await?),
        Some(Error::Outdated { found, .. }) => Some(*found),
        Some(_) => None,
    };
    Ok(State { version, needed: needed(), user, is_owner, is_complete, problem })
}

/// The version of the last migration of this release.
fn needed() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Grants in one transaction behind a lock: concurrent grants fail when they update the same catalog rows.
async fn grant(connection: &mut PgConnection) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    raw_sql("LOCK TABLE _sqlx_migrations IN SHARE ROW EXCLUSIVE MODE").execute(&mut *transaction).await?;
    raw_sql(GRANTS).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// The version of the last applied migration; 0 in an empty database.
async fn version(connection: &mut PgConnection) -> sqlx::Result<i64> {
    if !is_migrated(connection).await? {
        return Ok(0);
    }
    query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success").fetch_one(connection).await
}

/// Whether this database was ever migrated.
async fn is_migrated(connection: &mut PgConnection) -> sqlx::Result<bool> {
    query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(connection).await
}

/// Whether the service role exists and has all its rights. A dump of a database does not contain the role, and an interrupted
/// migration may not have granted the rights.
async fn is_granted(connection: &mut PgConnection) -> sqlx::Result<bool> {
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

/// Returns each pair of a table or function and a right in [`GRANTS`].
fn granted() -> impl Iterator<Item = (&'static str, &'static str)> {
    let grants = GRANTS.lines().filter_map(|line| line.strip_prefix("GRANT ")?.strip_suffix(" TO passbook_service;"));
    let grants = grants.filter_map(|grant| grant.split_once(" ON "));
    grants.flat_map(|(rights, names)| {
        let names = names.trim_start_matches("FUNCTION ").split(", ");
        names.flat_map(move |name| rights.split(", ").map(move |right| (name, right)))
    })
}

/// Whether this user owns the tables or, if there are none, can create them.
async fn owns(connection: &mut PgConnection) -> sqlx::Result<bool> {
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

async fn current_user(connection: &mut PgConnection) -> sqlx::Result<String> {
    query_scalar("SELECT current_user::text").fetch_one(connection).await
}
