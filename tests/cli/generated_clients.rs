//! Three generators build clients from the OpenAPI document. Each client is compiled strictly, and opens an account, deposits,
//! pages and follows the feed of two running banks, whose logs have one partition and four.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use passbook_testkit::{
    folder::Folder,
    process::{Passbook, Running},
    repository_root,
};

/// A folder with the sources of the clients and the document of the banks, whose logs have one partition and four.
struct Clients {
    banks: Vec<(Running, Folder)>,
    folder: Folder,
}

/// The folder in which `scripts/install-deps --test` installs the generators.
fn tools() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository_root().join("target"), PathBuf::from)
}

impl Clients {
    async fn new() -> Self {
        let banks = ["1", "4"].map(|partitions| {
            let data = Folder::migrated();
            (Passbook::in_folder(&data).set("PASSBOOK_PARTITIONS", partitions).start(), data)
        });
        let clients = Self { banks: banks.into(), folder: Folder::empty() };
        fs::create_dir(clients.path()).unwrap();
        for file in fs::read_dir(repository_root().join("tests/clients")).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), clients.path().join(file.file_name())).unwrap();
        }
        symlink(tools().join("clients/node_modules"), clients.path().join("node_modules")).unwrap();
        let mut documents = Vec::new();
        for (bank, _) in &clients.banks {
            documents.push(bank.client.get("/openapi.json").await.bytes().await.unwrap());
        }
        assert_eq!(documents[0], documents[1]);
        fs::write(clients.path().join("openapi.json"), &documents[0]).unwrap();
        clients
    }

    fn path(&self) -> PathBuf {
        self.folder.join("clients")
    }

    /// Runs a program in the folder and expects that it succeeds.
    fn run(&self, program: &Path, arguments: &[&str]) {
        let output =
            Command::new(program).args(arguments).current_dir(self.path()).env("PYTHONDONTWRITEBYTECODE", "1").output();
        let output = output.unwrap_or_else(|error| {
            panic!("cannot run {} ({error}): run `scripts/install-deps --test`", program.display())
        });
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{} {arguments:?}: {stdout}{stderr}", program.display());
    }

    fn run_node_tool(&self, name: &str, arguments: &[&str]) {
        self.run(&self.path().join("node_modules/.bin").join(name), arguments);
    }

    /// Runs a client against each bank.
    fn use_each_bank(&self, program: &Path, client: &str) {
        for (bank, _) in &self.banks {
            self.run(program, &[client, bank.client.base_url()]);
        }
    }

    /// Generates, compiles and runs the TypeScript clients.
    fn run_typescript_clients(&self) {
        self.run_node_tool("openapi-typescript", &["openapi.json", "--output", "schema.d.ts"]);
        self.run_node_tool("openapi-ts", &["--file", "hey_api.config.mjs"]);
        self.run_node_tool("tsc", &["--project", "tsconfig.json"]);
        for client in ["out/openapi_typescript.js", "out/hey_api.js"] {
            self.use_each_bank(Path::new("node"), client);
        }
    }

    /// Generates and runs the Python client.
    fn run_python_client(&self) {
        let programs = tools().join("openapi-python-client/bin");
        let arguments = [
            "generate",
            "--path=openapi.json",
            "--config=python_client.yaml",
            "--meta=none",
            "--output-path=passbook_client",
            "--fail-on-warning",
        ];
        self.run(&programs.join("openapi-python-client"), &arguments);
        self.use_each_bank(&programs.join("python"), "client.py");
    }
}

#[tokio::test]
async fn generated_typescript_clients_compile_and_use_the_bank() {
    Clients::new().await.run_typescript_clients();
}

#[tokio::test]
async fn generated_python_client_uses_the_bank() {
    Clients::new().await.run_python_client();
}
