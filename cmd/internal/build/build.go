// Package build tells the version of a command.
package build

import "runtime/debug"

// Version returns the version of the module, else the revision that the command
// was built from.
func Version() string {
	const none = "(devel)"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return none
	}
	if v := info.Main.Version; v != "" && v != none {
		return v
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value
		}
	}
	return none
}
