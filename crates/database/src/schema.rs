//! The schema and who may do what in it: the tables' owner migrates, and whoever serves takes the role
//! `passbook_service`, which can append events and keep views but not change what is recorded.

use sqlx::{
    Connection, PgConnection,
    migrate::{MigrateError, Migrator},
    query_scalar, raw_sql,
};

/// A newer release may have migrated already: what it added does not disturb this one.
static MIGRATOR: Migrator = Migrator { ignore_missing: true, ..sqlx::migrate!("../../migrations") };

/// What the service may do.
const GRANTS: &str = include_str!("grants.sql");

/// The setting that makes a connection the service's.
pub(super) const AS_SERVICE: (&str, &str) = ("role", "passbook_service");

/// Why the schema is not one that can be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database's schema could not be brought up to date: {0}")]
    Migration(#[from] MigrateError),
    #[error("the user {user} does not own Passbook's tables, so may not migrate them: use the one who does")]
    NotOwner { user: String },
    #[error(
        "the database's schema is at version {found} and this release needs {needed}: run `passbook migrate` with a \
         PASSBOOK_DATABASE_URL whose user owns the tables"
    )]
    Outdated { found: i64, needed: i64 },
    #[error(
        "the role passbook_service is missing and this user may not create it: as a superuser say \
         `CREATE ROLE passbook_service; GRANT passbook_service TO {user};` and run `passbook migrate` again"
    )]
    NoRole { user: String },
    #[error(
        "the user {user} may not take the role passbook_service: as the owner of the tables run `passbook migrate`, and \
         say `GRANT passbook_service TO {user};`"
    )]
    NotGranted { user: String },
    #[error("the database's schema could not be looked at: {0}")]
    Unreadable(#[from] sqlx::Error),
}

/// Brings the schema up to date and grants the service its rights. Instances that start together take turns.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<(), Error> {
    if !owns(connection).await? {
        return Err(Error::NotOwner { user: current_user(connection).await? });
    }
    MIGRATOR.run(&mut *connection).await?;
    match grant(connection).await {
        // Insufficient privilege, or no such role.
        Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42501" | "22023")) => {
            Err(Error::NoRole { user: current_user(connection).await? })
        }
        granted => Ok(granted?),
    }
}

/// Migrates if this user owns the tables; otherwise looks, as the service, whether somebody has.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(), Error> {
    if owns(connection).await? {
        return match version(connection).await? >= needed() && is_granted(connection).await? {
            true => Ok(()),
            false => migrate(connection).await,
        };
    }
    check(connection).await
}

/// Looks, as the service, whether the schema is there and new enough.
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

/// The last migration that this release knows.
fn needed() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// One transaction behind one lock, since two who grant at once would disturb each other's catalogue rows.
async fn grant(connection: &mut PgConnection) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    raw_sql("LOCK TABLE _sqlx_migrations IN SHARE ROW EXCLUSIVE MODE").execute(&mut *transaction).await?;
    raw_sql(GRANTS).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// The last migration that was carried out; 0 in an empty database.
async fn version(connection: &mut PgConnection) -> sqlx::Result<i64> {
    if !is_migrated(connection).await? {
        return Ok(0);
    }
    query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success").fetch_one(connection).await
}

/// Whether anybody has ever migrated here.
async fn is_migrated(connection: &mut PgConnection) -> sqlx::Result<bool> {
    query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(connection).await
}

/// Whether the service's role is there and has its rights: neither travels with a dump of the database, and whoever migrated may
/// have been killed before it granted those that are new.
async fn is_granted(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let (tables, rights): (Vec<_>, Vec<_>) = granted().unzip();
    query_scalar(
        "SELECT EXISTS (
             SELECT FROM pg_roles AS service
             WHERE rolname = 'passbook_service' AND NOT EXISTS (
                 SELECT FROM unnest($1::text[], $2::text[]) AS granted(name, rights)
                 WHERE NOT coalesce(has_table_privilege(service.oid, to_regclass(name), rights), true)
             )
         )",
    )
    .bind(tables)
    .bind(rights)
    .fetch_one(connection)
    .await
}

/// Each right on each table that the service is granted.
fn granted() -> impl Iterator<Item = (&'static str, &'static str)> {
    let granting = GRANTS.lines().filter_map(|line| line.strip_prefix("GRANT ")?.strip_suffix(" TO passbook_service;"));
    let lines = granting.filter_map(|line| line.split_once(" ON "));
    lines.flat_map(|(rights, tables)| {
        tables.split(", ").flat_map(move |table| rights.split(", ").map(move |right| (table, right)))
    })
}

/// Whether this user is the tables' owner, or may create them where there are none.
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
