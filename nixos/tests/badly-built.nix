# Configurations that evaluate, and whose files op-dbus refuses when the system is built.
lib: pkgs:
let
  plugin =
    toml:
    pkgs.runCommand "plugin" { text = pkgs.writeText "plugin.toml" toml; } ''
      mkdir $out
      cp $text $out/plugin.toml
    '';
  named =
    name:
    plugin ''
      [plugin]
      name = "${name}"
      version = "1"
      source = "hand-written"
    '';
in
{
  setting-unknown = { settings.cache.max_size = 1; };
  setting-wrong = { settings.cache.policy = "lur"; };
  variable-unknown = { extraEnvironment.OPDBUS_CACHE_MAX_SIZE = "16"; };
  variable-wrong = { extraEnvironment.OPDBUS_CACHE_MAX_SIZE_GB = "much"; };
  plugin-twice = {
    plugins = [
      (named "lamp")
      (pkgs.runCommand "other" { of = named "lamp"; } "cp -r $of $out")
    ];
  };
  plugin-misspelt = { plugins = [ (plugin "[plugin]\nname = \"lamp\"\nversoin = \"1\"\n") ]; };
  plugin-without-file = { plugins = [ (pkgs.runCommand "empty" { } "mkdir $out") ]; };
}
