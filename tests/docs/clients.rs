//! docs/backend.md: its commands generate clients from docs/openapi.yaml. With each client its
//! example sets a status and reads the key, and gets the errors of the program as types.

use std::path::{Path, PathBuf};

use holdfast_testkit::{Launch, PATIENCE, Scratch, project_file};
use tokio::process::Command;
use tokio::time::timeout;

use crate::docs::code::code_below;

const TOKEN: &str = "of-the-clients-that-are-generated";

/// A client that docs/backend.md shows. Its commands run in `directory`, with the variables of
/// [`shell`].
struct Client {
    heading: &'static str,
    language: &'static str,
    directory: &'static str,
    /// The file of the example.
    file: &'static str,
    build: &'static str,
    run: &'static str,
}

const CLIENTS: [Client; 4] = [
    Client {
        heading: "Go, generated",
        language: "go",
        directory: "src/example.com/shop",
        file: "main.go",
        // In this mode Go takes Debian's packages, and downloads none.
        build: "GO111MODULE=off GOPATH=$(realpath ../../..):/usr/share/gocode go build -o set .",
        run: "./set",
    },
    Client {
        heading: "Python, generated",
        language: "python",
        directory: ".",
        file: "set.py",
        build: "true",
        run: "PYTHONPATH=holdfast-client python set.py",
    },
    Client {
        heading: "Java, generated",
        language: "java",
        directory: ".",
        file: "SetStatus.java",
        build: "javac -d classes -cp $JARS holdfast-client/src/main/java/holdfast/*.java SetStatus.java",
        run: "java -cp classes:$JARS SetStatus",
    },
    Client {
        heading: "TypeScript, generated",
        language: "ts",
        directory: ".",
        file: "set.ts",
        build: r#"echo '{"type":"module"}' >package.json
            tsc --strict --target es2022 --module nodenext --types node set.ts"#,
        run: "node set.js",
    },
];

/// Runs commands of the shell in `directory`. Returns whether they ended well, and what they
/// printed.
async fn shell(directory: &Path, commands: &str) -> (bool, String) {
    let tools = std::env::var("CLIENTS").expect("CLIENTS names the directory of the tools");
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(tools);
    let tools = tools.display();
    let path = std::env::var("PATH").expect("PATH");
    // The generator has Jackson in itself, which its clients for Java need too.
    let jars = std::env::var("JARS").expect("JARS names what the client for Java needs");
    let output = Command::new("bash")
        .args(["-e", "-c", commands])
        .current_dir(directory)
        .env("TOOLS", tools.to_string())
        .env(
            "PATH",
            format!("{tools}/bin:{tools}/node_modules/.bin:{path}"),
        )
        .env("JARS", jars)
        .env("HOLDFAST_TOKEN", TOKEN)
        .kill_on_drop(true)
        .output();
    // The generator and the compilers take longer than anything else here.
    let output = timeout(10 * PATIENCE, output)
        .await
        .expect("an end")
        .expect("bash");
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    (output.status.success(), printed)
}

#[tokio::test]
#[ignore = "the generators are installed by `make test-clients`"]
async fn each_generated_client_sets_a_status_and_gets_errors_as_types() {
    let scratch = Scratch::new();
    let tokens = scratch.file("internal-token", TOKEN);
    for client in &CLIENTS {
        let secrets = scratch.file("key-secret", "0123456789abcdef0123456789abcdef");
        let args = [
            "--internal-token-file",
            &tokens,
            "--key-secret-file",
            &secrets,
        ];
        let node = Launch::new(&args).bearer(TOKEN).start().await;
        let example = &code_below("docs/backend.md", client.heading, client.language)[0];
        let example = example.replace("127.0.0.1:11001", &node.internal.tcp().to_string());
        let place = Scratch::new();
        let directory: PathBuf = place.path(client.directory);
        std::fs::create_dir_all(&directory).expect("a directory");
        let write = |name: &str, text: &str| {
            std::fs::write(directory.join(name), text).expect("a written file");
        };
        write("openapi.yaml", &project_file("docs/openapi.yaml"));
        let generate = &code_below("docs/backend.md", client.heading, "sh")[0];
        // `npx` looks for programs here, and would download them otherwise.
        let installed = r#"ln -sfn "$TOOLS/node_modules" node_modules"#;
        let (well, printed) = shell(&directory, &format!("{installed}\n{generate}")).await;
        assert!(well, "{}: {printed}", client.heading);
        let run = format!("{}\n{}", client.build, client.run);

        write(client.file, &example);
        let (well, printed) = shell(&directory, &run).await;
        assert!(well, "{}: {printed}", client.heading);
        let state = node.internal("GET", "/keys/order-42", &[], b"").await;
        let state = state.object();
        assert_eq!(state["value"]["state"], "paid", "{}", client.heading);
        let version = state["version"].to_string();
        assert!(printed.contains(&format!("stored: {version}")), "{printed}");
        assert!(printed.contains("known: "), "{printed}");

        // A 409: now something is stored under the key.
        let (well, printed) = shell(&directory, client.run).await;
        let conflict = format!("refused: conflict {version}");
        assert!(well && printed.contains(&conflict), "{printed}");

        // A 400: a key is no id with a dot in it, and the clients do not know.
        write(client.file, &example.replace("order-42", "order.42"));
        let (well, printed) = shell(&directory, &run).await;
        assert!(
            !well && printed.contains("mistake: key: must be an id"),
            "{printed}"
        );
    }
}
