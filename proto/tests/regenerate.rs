//! Compiles the `.proto` files again and compares with the checked-in code.

use std::{fs, path::Path};

#[test]
fn generated_code_matches_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = [
        "weft/v1/discovery.proto",
        "weft/v1/identity.proto",
        "weft/v1/replicas.proto",
    ];
    let descriptors = protox::compile(files.map(|file| root.join(file)), [root])
        .expect("the .proto files compile");
    let fresh = tempfile::tempdir().expect("a temporary directory");
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .out_dir(fresh.path())
        .compile_fds(descriptors)
        .expect("code generation succeeds");
    let fresh = fs::read_to_string(fresh.path().join("weft.v1.rs")).expect("generated");
    let kept = root.join("src/gen/weft.v1.rs");
    #[allow(
        clippy::disallowed_methods,
        reason = "a switch of this test, not a knob"
    )]
    if std::env::var("WEFT_REGENERATE").is_ok() {
        fs::write(&kept, &fresh).expect("src/gen can be written");
    }
    let kept = fs::read_to_string(kept).unwrap_or_default();
    assert!(
        fresh == kept,
        "src/gen differs from weft/v1/*.proto: run WEFT_REGENERATE=1 cargo test -p weft-proto"
    );
}
