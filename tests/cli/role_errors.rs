//! Roles, rights and schemas that are missing: the command exits with one sentence that names the statement to run.

use passbook_testkit::{
    folder::Folder,
    postgres_server::PostgresServer,
    process::{Exited, Passbook},
};

/// A server of its own, because roles belong to the whole server.
struct Server {
    postgres: PostgresServer,
    folder: Folder,
}

impl Server {
    /// Starts a server without any role or table of Passbook.
    async fn start(setup: &[&str]) -> Self {
        let folder = Folder::empty();
        let server = Self { postgres: PostgresServer::start(&folder).await, folder };
        server.execute(setup).await;
        server
    }

    /// Executes statements as the superuser.
    async fn execute(&self, statements: &[&str]) {
        for statement in statements {
            self.postgres.execute(statement, "passbook").await;
        }
    }

    fn run(&self, user: &str, command: &str) -> Exited {
        self.command(user, command).wait_for_exit()
    }

    fn command(&self, user: &str, command: &str) -> Passbook {
        let passbook = Passbook::with_database(&self.postgres.url_of(user));
        command.split(' ').fold(passbook, Passbook::argument)
    }

    fn migrate(&self, user: &str) {
        let ended = self.run(user, "migrate");
        assert!(ended.status.success(), "{ended:?}");
    }
}

#[track_caller]
fn assert_error(ended: &Exited, expected: &str) {
    assert!(ended.error_message().contains(expected), "{expected:?} is missing: {ended:?}");
}

#[tokio::test]
async fn the_owner_of_a_second_database_gets_the_grant_statement_alone() {
    let server = Server::start(&[
        "CREATE ROLE first LOGIN CREATEROLE",
        "GRANT CREATE ON SCHEMA public TO first",
        "CREATE ROLE second LOGIN",
        "CREATE DATABASE other OWNER second",
    ])
    .await;
    server.migrate("first");
    // Since Postgres 16, CREATEROLE gives no right to grant the roles of others.
    if server.postgres.major().await >= 16 {
        server.execute(&["ALTER ROLE second CREATEROLE"]).await;
    }
    let other = server.postgres.url_of("second").replace("/passbook?", "/other?");
    let refused = Passbook::with_database(&other).argument("migrate").wait_for_exit();
    assert_error(&refused, "the database user second cannot take the role passbook_service");
    assert_error(&refused, "run `GRANT passbook_service TO second;`");
    assert!(!refused.error_message().contains("CREATE ROLE"), "{refused:?}");
    server.execute(&["GRANT passbook_service TO second"]).await;
    let migrated = Passbook::with_database(&other).argument("migrate").wait_for_exit();
    assert!(migrated.status.success(), "{migrated:?}");
}

#[tokio::test]
async fn an_owner_without_the_right_to_create_roles_gets_both_statements() {
    let server = Server::start(&["CREATE ROLE \"Own er\" LOGIN", "GRANT CREATE ON SCHEMA public TO \"Own er\""]).await;
    let refused = server.run("Own%20er", "migrate");
    assert_error(&refused, "run `CREATE ROLE passbook_service; GRANT passbook_service TO \"Own er\";`");
    server.execute(&["CREATE ROLE passbook_service", "GRANT passbook_service TO \"Own er\""]).await;
    server.migrate("Own%20er");
}

#[tokio::test]
async fn an_owner_without_create_on_the_schema_gets_that_grant() {
    let server = Server::start(&["CREATE ROLE owner LOGIN CREATEROLE"]).await;
    assert_error(&server.run("owner", "serve"), "none of Passbook's tables: run `passbook migrate`");
    let refused = server.run("owner", "migrate");
    assert_error(&refused, "owner may not create tables in the schema public");
    assert_error(&refused, "`GRANT CREATE ON SCHEMA public TO owner;`");
    server.execute(&["GRANT CREATE ON SCHEMA public TO owner"]).await;
    server.migrate("owner");
}

#[tokio::test]
async fn a_search_path_without_any_schema_is_named() {
    let server =
        Server::start(&["CREATE ROLE owner LOGIN CREATEROLE", "ALTER ROLE owner SET search_path = nowhere"]).await;
    assert_error(&server.run("owner", "migrate"), "no schema in the search_path of the database user owner exists");
}

#[tokio::test]
async fn a_schema_that_the_service_may_not_use_is_named() {
    let server = Server::start(&[
        "CREATE ROLE owner LOGIN CREATEROLE",
        "ALTER ROLE owner SET search_path = private",
        "CREATE SCHEMA private",
        "GRANT USAGE, CREATE ON SCHEMA private TO owner",
    ])
    .await;
    let refused = server.run("owner", "migrate");
    assert_error(&refused, "`GRANT USAGE ON SCHEMA private TO passbook_service;`");
    server.execute(&["GRANT USAGE ON SCHEMA private TO passbook_service"]).await;
    server.migrate("owner");
}

#[tokio::test]
async fn a_member_that_may_not_take_the_role_gets_the_grant_with_set() {
    let server = Server::start(&["CREATE ROLE bank LOGIN"]).await;
    // Older servers have no such memberships.
    if server.postgres.major().await < 16 {
        return;
    }
    server.migrate("passbook");
    server.execute(&["GRANT passbook_service TO bank WITH SET FALSE"]).await;
    let refused = server.run("bank", "serve");
    assert_error(&refused, "run `GRANT passbook_service TO bank WITH SET TRUE;`");
    server.execute(&["GRANT passbook_service TO bank WITH SET TRUE"]).await;
    server.command("bank", "serve").start().client.open_account().await;
}

#[tokio::test]
async fn a_role_without_rights_is_reported_and_the_relay_ends() {
    let server = Server::start(&["CREATE ROLE bank LOGIN"]).await;
    server.migrate("passbook");
    server.execute(&["GRANT passbook_service TO bank"]).await;
    // First a right that only the relay needs, then all.
    for revoked in [
        "REVOKE UPDATE ON relay FROM passbook_service",
        "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM passbook_service",
    ] {
        server.execute(&[revoked]).await;
        for command in ["serve", "relay nats"] {
            let ended =
                server.command("bank", command).set("PASSBOOK_RELAY_NATS_URL", "nats://127.0.0.1:1").wait_for_exit();
            assert_error(&ended, "the role passbook_service lacks rights");
            assert_error(&ended, "run `passbook migrate`");
        }
    }
    server.migrate("passbook");
    server.command("bank", "serve").start().client.open_account().await;
}

#[tokio::test]
async fn a_dump_is_restored_into_a_fresh_server_without_errors() {
    let old = Server::start(&[]).await;
    let service = old.command("passbook", "serve").start();
    service.client.open_account().await;
    let deposit = service.client.deposit_ok("a-key").await;
    drop(service);
    let dump = old.folder.join("dump");
    old.postgres.dump(&dump);

    let new = Server::start(&["CREATE ROLE bank LOGIN"]).await;
    assert_eq!(new.postgres.restore_dump(&dump, &["--no-owner", "--no-privileges"]), "");
    // Before the migration there is neither the role nor any right.
    assert_error(&new.run("bank", "serve"), "run `CREATE ROLE passbook_service; GRANT passbook_service TO bank;`");
    new.migrate("passbook");
    new.execute(&["GRANT passbook_service TO bank"]).await;
    let service = new.command("bank", "serve").start();
    // The key is recorded, so this is the same deposit.
    assert_eq!(service.client.deposit_ok("a-key").await, deposit);
    let verified = new.run("bank", "verify");
    assert!(verified.status.success(), "{verified:?}");
}

#[tokio::test]
async fn migrate_completes_a_restore_that_had_no_role_to_grant_to() {
    let old = Server::start(&[]).await;
    old.migrate("passbook");
    let dump = old.folder.join("dump");
    old.postgres.dump(&dump);

    let new = Server::start(&[]).await;
    let errors = new.postgres.restore_dump(&dump, &[]);
    assert!(errors.contains("role \"passbook_service\" does not exist"), "{errors}");
    new.migrate("passbook");
    new.command("passbook", "serve").start().client.open_account().await;
}
