# What `nix flake check` looks at. The tests that need a bus, root, a disk or the model run by `make test`
# on a machine, and so do those that read the whole repository; those here need none of it.
{
  lib,
  runCommand,
  cargo,
  clippy,
  rustfmt,
  testers,
  operation-dbus,
  operation-dbus-program,
  operation-dbus-plugin-lxc,
  operation-dbus-plugin-netmaker,
  ...
}:
let
  # The same dependencies, the sources with what tests read beside them, and another command.
  cargoDoes =
    name: tools: command:
    operation-dbus-program.overrideAttrs (previous: {
      pname = "operation-dbus-${name}";
      src = lib.fileset.toSource {
        root = ../..;
        fileset = lib.fileset.unions (
          previous.passthru.files
          ++ [
            ../../README.md
            ../../fuzz/fuzz_targets
          ]
        );
      };
      nativeBuildInputs = previous.nativeBuildInputs ++ tools;
      buildPhase = command;
      installPhase = "touch $out";
      dontFixup = true;
    });
  module = import ./module.nix { inherit lib; };
in
{
  package = operation-dbus;
  lxc = operation-dbus-plugin-lxc;
  netmaker = operation-dbus-plugin-netmaker;

  fmt = cargoDoes "fmt" [ rustfmt ] "cargo fmt --all --check";

  clippy = cargoDoes "clippy" [
    clippy
  ] "cargo clippy --offline --release --workspace --locked --all-targets -- -D warnings";

  tests = cargoDoes "tests" [ cargo ] ''
    cargo test --offline --release --workspace --locked --lib --bins
    cargo test --offline --release --workspace --locked --test golden --test round_trip \
      --test corpus --test filter --test history --test model
  '';

  module =
    runCommand "operation-dbus-module"
      {
        failed = lib.concatStringsSep "\n" module.failed;
        passed = lib.concatStringsSep "\n" module.passed;
      }
      ''
        if [ -n "$failed" ]; then
          echo "$failed" >&2
          exit 1
        fi
        printf '%s\n' "$passed" >$out
      '';

  vm = testers.runNixOSTest ./vm.nix;
}
