// Package proof shows what the README and docs/install.md promise, on machines
// that run a real systemd: Ansible builds a cluster over ssh from freshly built
// packages, somebody walks through it with kubectl, and then everything is done
// to it that happens to machines.
//
//	go test ./test/machines/proof                   the short form: build, walk, run the playbook again
//	go test -tags machines ./test/machines/proof    everything, what `make machines` runs
//
// With -fleet FOLDER the tests take a fleet that hack/machines.sh made and leave
// it; with -run TestMachines/plug they do one thing to it.
package proof
