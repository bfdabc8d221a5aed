# Makes a package of a plugin and validates it as the service will.
#
#   buildOperationDbusPlugin {
#     name = "motd";
#     src = ./motd;                       # a directory with plugin.toml, and whatever that names
#   }
#   buildOperationDbusPlugin {
#     name = "hostname";
#     introspection = ./hostname.xml;     # busctl introspect --xml-interface SERVICE OBJECT
#     mapping = ./semantic-mapping.toml;  # which of its methods are safe
#   }
#
# programs are executables that are put beside plugin.toml. The package is the plugin's directory.
{
  lib,
  runCommand,
  operation-dbus,
}:
{
  name,
  version ? "1",
  description ? "",
  src ? null,
  programs ? [ ],
  introspection ? null,
  mapping ? null,
  meta ? { },
}:
let
  isGenerated = introspection != null && mapping != null;
  service = (lib.importTOML mapping).service;
  # All that it takes of plugin.toml stands in the mapping already.
  pluginToml = ''
    [plugin]
    name = ${builtins.toJSON name}
    version = ${builtins.toJSON version}
    source = "auto-generated"
    dbus_service = ${builtins.toJSON service.name}
    dbus_path = ${
      builtins.toJSON (service.path or ("/" + lib.replaceStrings [ "." ] [ "/" ] service.name))
    }
  ''
  + lib.optionalString (description != "") "description = ${builtins.toJSON description}\n";
in
assert lib.assertMsg ((src != null) != isGenerated)
  "the plugin ${name} is made from src, or from introspection and mapping: give one of both";
runCommand "operation-dbus-plugin-${name}"
  {
    inherit version;
    pluginName = name;
    meta = {
      platforms = lib.platforms.linux;
    }
    // meta;
    passthru.pluginName = name;
  }
  ''
    ${
      if isGenerated then
        ''
          mkdir $out
          cp ${introspection} $out/introspection.xml
          cp ${mapping} $out/semantic-mapping.toml
          cat >$out/plugin.toml <<'END'
          ${lib.removeSuffix "\n" pluginToml}
          END
        ''
      else
        ''
          cp -rL ${src} $out
          chmod -R u+w $out
        ''
    }
    ${lib.concatMapStrings (program: "install -m 755 -t $out ${program}\n") programs}
    chmod -R u+w,go-w $out
    patchShebangs $out
    ${operation-dbus}/bin/op-dbus plugin validate $out | tee said
    if ! grep -qxF "$out: plugin $pluginName is right" said; then
      echo "plugin.toml calls the plugin otherwise than $pluginName" >&2
      exit 1
    fi
  ''
