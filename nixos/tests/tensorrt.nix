# A card with TensorRT, by an ONNX Runtime that is a package of its own and takes no arguments of nixpkgs'.
{ lib, pkgs, ... }:
let
  onnxruntime = lib.callPackageWith pkgs (
    { runCommand }: runCommand "onnxruntime" { version = "1.32.0"; } "mkdir -p $out/lib"
  ) { };
in
{
  services.operation-dbus = {
    enable = true;
    package = pkgs.operation-dbus.override {
      inherit onnxruntime;
      tensorrtSupport = true;
    };
    ml.executionProvider = "tensorrt";
  };
  services.xserver.videoDrivers = [ "nvidia" ];
  hardware.graphics.enable = true;
  hardware.nvidia.open = true;
}
