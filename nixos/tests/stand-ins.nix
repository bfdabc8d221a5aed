# What packages and module take of nixpkgs, made from the tools of a machine that has only Nix and nixpkgs'
# lib: what is built here is really built, by this machine's bash and the op-dbus that cargo made.
#
# Not a second nixpkgs: whatever is not in here, nothing of the project may use without being added.
{
  lib,
  # A directory with bin/op-dbus and the plugins' executables; one with libonnxruntime.so; and the model's.
  program ? "/nowhere/program",
  runtime ? "/nowhere/runtime",
  model ? "/nowhere/model",
  system ? "x86_64-linux",
}:
let
  path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

  runCommand =
    name: attributes: script:
    let
      notForBuilders = [
        "passthru"
        "meta"
        "nativeBuildInputs"
        "buildInputs"
      ];
      built = derivation (
        builtins.removeAttrs attributes notForBuilders
        // {
          inherit name system;
          builder = "/bin/bash";
          args = [
            "-euo"
            "pipefail"
            "-c"
            ''
              export PATH=${path} HOME=/nowhere
              patchShebangs() { :; }
              umask 022
              ${script}
              # Nix kills a builder that closes its output, as programs do at their end: so bash is the last.
              true
            ''
          ];
        }
      );
    in
    built // attributes.passthru or { } // { meta = attributes.meta or { }; };

  writeFile =
    name: text: isExecutable:
    runCommand name { inherit text; } ''
      printf %s "$text" >$out
      ${lib.optionalString isExecutable "chmod 755 $out"}
    '';

  # TOML as far as settings go: scalars and lists, in tables.
  toToml =
    prefix: table:
    let
      parts = lib.mapAttrsToList (
        name: value:
        if lib.isAttrs value then
          "[${prefix}${builtins.toJSON name}]\n" + toToml "${prefix}${builtins.toJSON name}." value
        else
          ""
      ) table;
      pairs = lib.mapAttrsToList (
        name: value: lib.optionalString (!lib.isAttrs value) "${builtins.toJSON name} = ${builtins.toJSON value}\n"
      ) table;
    in
    lib.concatStrings (pairs ++ parts);

  valueType =
    format:
    let
      type =
        lib.types.nullOr (
          lib.types.oneOf [
            lib.types.bool
            lib.types.int
            lib.types.float
            lib.types.str
            lib.types.path
            (lib.types.attrsOf type)
            (lib.types.listOf type)
          ]
        )
        // {
          description = "${format} value";
        };
    in
    type;

  # Old versions of Nix cannot tell what a source is made of.
  withoutSource =
    attributes: builtins.removeAttrs attributes (lib.optional (!builtins ? readFileType) "src");

  existing = name: where: runCommand name { } "ln -s ${where} $out";
in
lib.makeExtensible (
  pkgs:
  # Programs and libraries of this machine, below a prefix that they are in.
  lib.genAttrs (lib.splitString " " (
    "btrfs-progs cargo ccache clippy coreutils dbus debootstrap fish glib gnumake hwloc man-db nix"
    + " nixfmt-tree numactl pkg-config rustc rustfmt shellcheck systemd tmux udev util-linux xfsprogs zsh"
  )) (name: existing name "/usr")
  // {
    inherit lib runCommand;
    config = { };
    callPackage = lib.callPackageWith pkgs;
    writeText = name: text: writeFile name text false;
    writeScript = name: text: writeFile name text true;

    formats.toml = _: {
      type = valueType "TOML";
      generate = name: value: pkgs.writeText name (toToml "" value);
    };
    formats.json = _: { type = valueType "JSON"; };

    runtimeShell = "/bin/bash";
    python3 = existing "python3" "/usr" // {
      withPackages = _: pkgs.python3;
    };
    mkShell = attributes: runCommand "shell" { passthru = attributes; } "touch $out";
    # Such a machine is evaluated with the others; here nobody starts it.
    testers.runNixOSTest =
      test: runCommand "vm-test" { script = (import test).testScript; } "echo $script >$out";

    # In the place of what is compiled and downloaded.
    rustPlatform = {
      bindgenHook = existing "bindgen" "/usr";
      buildRustPackage =
        attributes:
        runCommand "operation-dbus-program"
          {
            inherit (attributes) version;
            passthru = withoutSource attributes;
            meta = attributes.meta;
          }
          ''
            mkdir -p $out/bin
            cp ${program}/op-dbus ${program}/op-dbus-plugin-lxc ${program}/op-dbus-plugin-netmaker $out/bin
          ''
        // {
          overrideAttrs = change: runCommand "cargo" (withoutSource (change attributes)) "touch $out";
        };
    };
    onnxruntime = lib.makeOverridable (
      {
        cudaSupport ? false,
      }:
      runCommand "onnxruntime" {
        version = "1.32.0";
        passthru = { inherit cudaSupport; };
      } "mkdir $out; cp -r ${runtime} $out/lib"
    ) { };
    # What the overlay's own packages are replaced by.
    instead = _: _: { operation-dbus-model = runCommand "model" { } "cp -r ${model} $out"; };
    fetchPypi = arguments: existing "wheel" "/nowhere" // { inherit arguments; };
  }
)
