//go:build race

package systemtest

// raceEnabled says that these tests are built with the race detector: so are then the commands they run.
const raceEnabled = true
