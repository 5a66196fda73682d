//go:build race

package systemtest

// raceEnabled says that these tests, and the commands they run, are built with
// the race detector.
const raceEnabled = true
