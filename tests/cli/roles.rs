//! Database roles in an external Postgres: the owner migrates, and members of `passbook_service` serve.

use passbook_testkit::{folder::Folder, process::Passbook};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// An external Postgres with roles and databases. A service that runs for the whole test provides it.
struct ExternalPostgres {
    _host: passbook_testkit::process::Running,
    folder: Folder,
}

impl ExternalPostgres {
    async fn start(setup: &str) -> Self {
        let folder = Folder::migrated();
        let host = Passbook::in_folder(&folder).start();
        let postgres = Self { _host: host, folder };
        for statement in setup.split(';').filter(|statement| !statement.trim().is_empty()) {
            postgres.execute("postgres", statement).await;
        }
        postgres
    }

    fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@localhost/{database}?host={}", self.folder.data().join("run").display())
    }

    async fn execute(&self, database: &str, sql: &str) {
        let mut superuser = PgConnection::connect(&self.url("passbook", database)).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut superuser).await.unwrap();
    }
}

#[tokio::test]
async fn an_owner_without_superuser_migrates_and_a_service_user_serves() {
    let postgres = ExternalPostgres::start(
        "CREATE ROLE owner LOGIN CREATEROLE; CREATE ROLE bank LOGIN; CREATE ROLE stranger LOGIN;
         CREATE DATABASE own OWNER owner; GRANT passbook_service TO owner",
    )
    .await;
    let early = Passbook::with_database(&postgres.url("stranger", "own")).wait_for_exit();
    assert!(early.error_message().contains("run `passbook migrate`"), "{early:?}");

    let service = Passbook::with_database(&postgres.url("owner", "own")).start();
    service.client.open_account().await;
    let stranger = Passbook::with_database(&postgres.url("stranger", "own")).wait_for_exit();
    assert!(stranger.error_message().contains("GRANT passbook_service TO stranger"), "{stranger:?}");
    let refused = Passbook::with_database(&postgres.url("stranger", "own")).argument("migrate").wait_for_exit();
    assert!(refused.error_message().contains("does not own"), "{refused:?}");

    postgres.execute("own", "GRANT passbook_service TO bank").await;
    let another = Passbook::with_database(&postgres.url("bank", "own")).start();
    another.client.deposit_ok("a-key").await;
    another.client.wait_until_ready().await;
}

#[tokio::test]
async fn serve_repairs_grants_after_an_interrupted_migrate() {
    let postgres = ExternalPostgres::start("CREATE DATABASE own").await;
    let own = postgres.url("passbook", "own");
    assert!(Passbook::with_database(&own).argument("migrate").wait_for_exit().status.success());
    postgres.execute("own", "REVOKE ALL ON log_layout, relay FROM passbook_service").await;
    postgres.execute("own", "REVOKE ALL ON FUNCTION delete_old_keys FROM passbook_service").await;
    postgres.execute("own", "DROP INDEX idempotency_key_recorded_at, account_view_id_trigrams").await;
    let service = Passbook::with_database(&own).start();
    service.client.open_account().await;
    let mut superuser = PgConnection::connect(&own).await.unwrap();
    let is_repaired = "SELECT has_function_privilege('passbook_service', 'delete_old_keys'::regproc, 'EXECUTE')
                           AND (SELECT bool_and(indisvalid) FROM pg_index WHERE indexrelid IN
                               ('idempotency_key_recorded_at'::regclass, 'account_view_id_trigrams'::regclass))";
    assert!(sqlx::query_scalar::<_, bool>(is_repaired).fetch_one(&mut superuser).await.unwrap());
}

#[tokio::test]
async fn indexes_whose_build_was_interrupted_are_built_again() {
    let postgres = ExternalPostgres::start("CREATE DATABASE own").await;
    let own = postgres.url("passbook", "own");
    assert!(Passbook::with_database(&own).argument("migrate").wait_for_exit().status.success());
    let late = "SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid = ANY (ARRAY[
                    'idempotency_key_recorded_at', 'account_view_owner_folded', 'account_view_metadata',
                    'account_view_id_trigrams', 'account_transaction_reference_folded'
                ]::regclass[])";
    let mut superuser = PgConnection::connect(&own).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(late).fetch_one(&mut superuser).await.unwrap(), 5);
    let interrupted =
        late.replace("SELECT count(*) FROM pg_index WHERE", "UPDATE pg_index SET indisvalid = false WHERE");
    sqlx::raw_sql(sqlx::AssertSqlSafe(interrupted)).execute(&mut superuser).await.unwrap();
    assert!(Passbook::with_database(&own).argument("migrate").wait_for_exit().status.success());
    assert_eq!(sqlx::query_scalar::<_, i64>(late).fetch_one(&mut superuser).await.unwrap(), 5);
}

#[tokio::test]
async fn a_service_user_does_not_serve_an_older_schema() {
    let postgres = ExternalPostgres::start("CREATE ROLE bank LOGIN IN ROLE passbook_service").await;
    postgres.execute("passbook", "DELETE FROM _sqlx_migrations WHERE version > 1").await;
    let ended = Passbook::with_database(&postgres.url("bank", "passbook")).wait_for_exit();
    assert!(
        ended.error_message().contains("has version 1, but this release needs")
            && ended.error_message().contains("passbook migrate"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn an_owner_without_the_role_gets_the_grant_statement_to_run() {
    let postgres = ExternalPostgres::start("CREATE ROLE owner LOGIN; CREATE DATABASE own OWNER owner").await;
    // The role exists in this Postgres already, and this owner is not a member.
    let ended = Passbook::with_database(&postgres.url("owner", "own")).argument("migrate").wait_for_exit();
    assert!(ended.error_message().contains("GRANT passbook_service TO owner"), "{ended:?}");
    postgres.execute("own", "GRANT passbook_service TO owner").await;
    let service = Passbook::with_database(&postgres.url("owner", "own")).start();
    service.client.open_account().await;
}
