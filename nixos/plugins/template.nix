# A plugin of your own: copy this file, and put it into services.operation-dbus.plugins by
#   plugins = [ (pkgs.callPackage ./my-plugin.nix { }) ];
# The overlay of Operation D-Bus, which its module applies, has buildOperationDbusPlugin.
#
# This one needs no other file: what it answers stands here. It tells, and keeps, the text of a notice in
# /run, which users.motdFile = "/run/notice/text" shows at each login. For one with files of its own,
# say src = ./directory; for a D-Bus service, introspection and mapping.
{
  buildOperationDbusPlugin,
  runCommand,
  writeText,
  writeScript,
  python3,
}:
let
  pluginToml = writeText "plugin.toml" ''
    [plugin]
    name = "notice"
    version = "1"
    source = "hand-written"
    executable = "notice"

    # What is not named here it cannot reach.
    [sandbox]
    user = "root"
    write = ["/run/notice"]
  '';

  # The protocol is described in daemon/plugins/README.md: a JSON object a line, each way.
  executable = writeScript "notice" ''
    #!${python3}/bin/python3
    import json, os, sys

    def answer(request, path):
        verb, desired = request["verb"], request.get("desired", {})
        old = open(path).read() if os.path.exists(path) else ""
        new = desired.get("text", old)
        if verb == "query":
            return {"state": {"text": old}}
        change = {"path": "text", "from": old, "to": new, "what": "write " + path}
        changes = [change] if new != old else []
        if verb == "apply" and changes:
            with open(path + ".new", "w") as file:
                file.write(new)
            os.replace(path + ".new", path)
        return {{"diff": "changes", "apply": "applied", "verify": "differences"}[verb]: changes}

    for line in sys.stdin:
        reply, id = {}, {}
        try:
            request = json.loads(line)
            if "protocol" in request:
                path = request["config"].get("file", "/run/notice/text")
                reply = {"protocol": 1, "plugin": "notice", "version": "1"}
            else:
                id = {"id": request["id"]}
                reply = id | answer(request, path)
        except Exception as error:
            kind = "io" if isinstance(error, OSError) else "invalid"
            reply = id | {"error": {"kind": kind, "message": repr(error)}}
        print(json.dumps(reply), flush=True)
  '';
in
buildOperationDbusPlugin {
  name = "notice";
  src = runCommand "notice" { } ''
    mkdir $out
    cp ${pluginToml} $out/plugin.toml
    cp ${executable} $out/notice
  '';
}
