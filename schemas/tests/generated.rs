//! The checked-in gRPC code is what the `.proto` files generate today.
//!
//! Run with `UPDATE_GENERATED=1` to refresh it. `protox` compiles the files, so nobody needs protoc.

use std::{env, fs, path::Path};

use prost::Message as _;

const PROTOS: [&str; 2] = ["proto/objects.proto", "proto/node.proto"];

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = protox::compile(PROTOS.map(|proto| root.join(proto)), [root.join("proto")])
        .expect("the .proto files compile");
    let out = tempdir();
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(&out)
        .compile_fds(files.clone())
        .expect("code generation succeeds");
    let code = fs::read(out.join("clawbernetes.v1.rs")).expect("the package is generated");
    fs::remove_dir_all(&out).expect("the scratch folder goes away");
    check(&root.join("src/proto/gen/clawbernetes.v1.rs"), &code);
    check(&root.join("src/proto/gen/descriptor.bin"), &files.encode_to_vec());
}

fn check(path: &Path, fresh: &[u8]) {
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::create_dir_all(path.parent().expect("generated files live in a folder")).expect("folder");
        fs::write(path, fresh).expect("generated file is writable");
    }
    let checked_in = fs::read(path).unwrap_or_default();
    assert!(
        checked_in == fresh,
        "{} is stale: run `UPDATE_GENERATED=1 cargo test -p claw-schemas --test generated`",
        path.display()
    );
}

fn tempdir() -> std::path::PathBuf {
    let dir = env::temp_dir().join(format!("claw-generated-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("scratch folder");
    dir
}
