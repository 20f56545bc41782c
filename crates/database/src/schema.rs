//! The schema and its rights. The owner of the tables migrates; the running service takes the role `passbook_service`, which can
//! append events and update views but cannot change or delete events.

use sqlx::{
    PgConnection,
    migrate::{Migrate, MigrateError, Migrator},
    query_scalar, raw_sql,
};

use crate::{
    citus, late_indexes,
    rights::{
        can_use_schema, current_user, grant, is_denied, is_granted, no_usage, owns, why_no_role, why_not_granted,
        why_not_owner,
    },
};

/// The migrations of this release. Missing ones are ignored: a newer release may have applied further migrations, which are
/// compatible with this release. [`lock`] takes the lock.
static MIGRATOR: Migrator = Migrator { ignore_missing: true, locking: false, ..sqlx::migrate!("../../migrations") };

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
        "the database user {user} may not create tables in the schema {schema}: run `GRANT CREATE ON SCHEMA {schema} TO {user};` \
         as the owner of the schema or as a superuser, and `passbook migrate` again"
    )]
    NoCreate { user: String, schema: String },
    #[error(
        "no schema in the search_path of the database user {user} exists: create a schema that {user} owns, or correct the \
         search_path, and run `passbook migrate` again"
    )]
    NoSchema { user: String },
    #[error(
        "the database has none of Passbook's tables: run `passbook migrate` with a PASSBOOK_DATABASE_URL whose user may create \
         them"
    )]
    Missing,
    #[error(
        "the database schema has version {found}, but this release needs {needed}: run `passbook migrate` with a \
         PASSBOOK_DATABASE_URL whose user owns the tables"
    )]
    Outdated { found: i64, needed: i64 },
    #[error(
        "the role passbook_service does not exist, and the database user {user} cannot create it: run \
         `CREATE ROLE passbook_service; GRANT passbook_service TO {user};` as a superuser, and `passbook migrate` as the owner of \
         the tables"
    )]
    NoRole { user: String },
    #[error(
        "the database user {user} cannot take the role passbook_service: run `GRANT passbook_service TO {user};` as a superuser \
         or as a role that may grant it, and try again"
    )]
    NotGranted { user: String },
    #[error(
        "the database user {user} was granted the role passbook_service without the right to take it: run \
         `GRANT passbook_service TO {user} WITH SET TRUE;` as a superuser or as a role that may grant it, and try again"
    )]
    NotSettable { user: String },
    #[error(
        "the role passbook_service lacks rights on Passbook's tables in this database: run `passbook migrate` with a \
         PASSBOOK_DATABASE_URL whose user owns the tables"
    )]
    NoRights,
    #[error(
        "the role passbook_service may not use the schema {schema}, and the database user {user} cannot change that: run \
         `GRANT USAGE ON SCHEMA {schema} TO passbook_service;` as the owner of the schema, and `passbook migrate` again"
    )]
    NoUsage { user: String, schema: String },
    #[error("the rights of the role passbook_service could not be granted: {0}")]
    NotGrantable(#[source] sqlx::Error),
    #[error("the version of the database schema could not be read: {0}")]
    Unreadable(#[from] sqlx::Error),
}

impl Error {
    /// Whether the user cannot take the role of the service.
    pub(super) fn is_about_role(&self) -> bool {
        matches!(self, Self::NoRole { .. } | Self::NotGranted { .. } | Self::NotSettable { .. })
    }
}

/// Applies the missing migrations and grants the service role its rights. A lock serializes instances that start together: the
/// others wait until the first has finished, however long its migrations take.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<(), Error> {
    if !owns(connection).await? {
        return Err(why_not_owner(connection).await?);
    }
    lock(connection).await?;
    // After an error the caller closes the connection, which releases the lock.
    MIGRATOR.run(&mut *connection).await?;
    let granted = grant(connection).await;
    connection.unlock().await?;
    if let Err(error) = granted {
        return Err(why_not_granted(connection, error).await?);
    }
    if !can_use_schema(connection).await? {
        return Err(no_usage(connection).await?);
    }
    if citus::is_distributed(connection).await? {
        citus::share_functions(connection).await?;
    }
    // After the lock is released: the builds wait for the statements of instances that wait for the lock.
    Ok(late_indexes::build(connection).await?)
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
            && late_indexes::are_built(connection).await?;
        if !is_complete {
            return migrate(connection).await;
        }
    }
    match check(connection).await {
        // The owner may grant itself the role.
        Err(error) if error.is_about_role() && owns(connection).await? => migrate(connection).await,
        checked => checked,
    }
}

/// Takes the service role and checks that the schema exists and is new enough.
pub(super) async fn check(connection: &mut PgConnection) -> Result<(), Error> {
    let needed = needed();
    if !is_migrated(connection).await? {
        return Err(Error::Missing);
    }
    match raw_sql("SET ROLE passbook_service").execute(&mut *connection).await {
        Err(error) if is_denied(&error) => return Err(why_no_role(connection).await?),
        taken => {
            taken?;
        }
    }
    match version(connection).await {
        Err(error) if is_denied(&error) => Err(Error::NoRights),
        Err(error) => Err(error.into()),
        Ok(found) if found < needed => Err(Error::Outdated { found, needed }),
        Ok(_) if !is_granted(connection).await? => Err(Error::NoRights),
        Ok(_) => Ok(()),
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
    let is_complete = is_granted(connection).await? && late_indexes::are_built(connection).await?;
    let problem = check(connection).await.err();
    let version = match &problem {
        None => Some(version(connection).await?),
        Some(Error::Outdated { found, .. }) => Some(*found),
        Some(Error::Missing) => Some(0),
        Some(_) => None,
    };
    Ok(State { version, needed: needed(), user, is_owner, is_complete, problem })
}

/// The version of the last migration of this release.
fn needed() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0)
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
