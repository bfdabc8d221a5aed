# What .ci/system-packages lists for Debian, and Rust.
{
  lib,
  mkShell,
  operation-dbus-program,
  onnxruntime,
  cargo,
  clippy,
  rustc,
  rustfmt,
  btrfs-progs,
  ccache,
  dbus,
  debootstrap,
  fish,
  glib,
  gnumake,
  man-db,
  nix,
  python3,
  shellcheck,
  systemd,
  tmux,
  xfsprogs,
  zsh,
}:
mkShell {
  inputsFrom = [ operation-dbus-program ];
  packages = [
    cargo
    clippy
    rustc
    rustfmt
    btrfs-progs
    ccache
    dbus
    debootstrap
    fish
    glib
    gnumake
    man-db
    nix
    (python3.withPackages (packages: [ packages.jeepney ]))
    shellcheck
    systemd
    tmux
    xfsprogs
    zsh
  ];
  # The library that `make setup` would download does not run where there is no /lib64.
  ORT_DYLIB_PATH = "${lib.getLib onnxruntime}/lib/libonnxruntime.so";
}
