//go:build machines

package proof

// harder is what happens to machines in a life. The last step takes the cluster
// away.
var harder = []step{
	{"plug", testPlug},
	{"reboot", testReboot},
	{"daemons", testDaemons},
	{"upgrade", testUpgrade},
	{"disk", testDisk},
	{"reset", testReset},
}
