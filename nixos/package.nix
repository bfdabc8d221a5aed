# Operation D-Bus as a system has it: op-dbus with ONNX Runtime and the model beside it, where it finds them
# without being told, and the units and policies of daemon/system, with the paths and users of this system.
# Nothing wraps the program: it would be another process name, and a variable comes before the settings.
{
  lib,
  runCommand,
  runtimeShell,
  coreutils,
  systemd,
  util-linux,
  onnxruntime,
  operation-dbus-model,
  operation-dbus-program,
  config,
  # Whom the service runs as, and whose members may read. These stand in units and policies.
  user ? "op-dbus",
  group ? "op-dbus",
  # Whether the model can run on a card. ONNX Runtime is then compiled, which takes hours, unless a cache
  # has it.
  cudaSupport ? config.cudaSupport or false,
  # That of nixpkgs is built without TensorRT; who has one that is says so.
  tensorrtSupport ? false,
}:
let
  program = operation-dbus-program;
  model = operation-dbus-model;
  # One that does not take the argument, as one made for TensorRT may not, is taken as it is.
  takesCuda = lib.functionArgs (onnxruntime.override or (_: { })) ? cudaSupport;
  runtime =
    if takesCuda && (onnxruntime.cudaSupport or false) != cudaSupport then
      onnxruntime.override { inherit cudaSupport; }
    else
      onnxruntime;
  versionMin = "1.24";
in
assert lib.assertMsg (lib.versionAtLeast (lib.getVersion runtime) versionMin) ''
  op-dbus needs ONNX Runtime ${versionMin} or newer, and this nixpkgs has ${lib.getVersion runtime}.
  Take nixpkgs of a later release, or give another: operation-dbus.override { onnxruntime = …; }'';
runCommand "operation-dbus-${program.version}"
  {
    pname = "operation-dbus";
    inherit (program) version;
    programDirectory = "${program}";
    modelDirectory = "${model}";
    runtimeDirectory = "${lib.getLib runtime}/lib";
    systemFiles = "${../daemon/system}";
    serviceUser = user;
    serviceGroup = group;
    shProgram = runtimeShell;
    killProgram = "${util-linux}/bin/kill";
    systemctlProgram = "${systemd}/bin/systemctl";
    falseProgram = "${coreutils}/bin/false";
    passthru = {
      inherit
        program
        model
        runtime
        cudaSupport
        tensorrtSupport
        ;
    };
    meta = program.meta;
  }
  ''
    source ${./install.sh}
  ''
