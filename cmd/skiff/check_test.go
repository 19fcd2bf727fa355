package main

import (
	"encoding/json"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/skiff-run/skiff/cmd/skiff/check"
)

// TestCheckFindsATakenPortAndInitNamesCheck takes a port of the configuration and
// looks whether check says so, with exit code and remedy, and init points to it.
func TestCheckFindsATakenPortAndInitNamesCheck(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	root := t.TempDir()
	if err := os.MkdirAll(root+"/etc/skiff", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/etc/skiff/agent.yaml", []byte("apiVersion: skiff.dev/v1\nkind: AgentConfiguration\nport: "+port+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := runSkiff(t, "check", "--root", root, "-o", "json")
	if err == nil || !strings.Contains(err.Error(), "failed, see above") {
		t.Errorf("a port is taken, and the verdict is %v", err)
	}
	var report check.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	said := false
	for _, f := range report.Findings {
		said = said || f.Check == "port "+port && f.Status == check.Fail && len(f.Remedy) > 0
	}
	if !said || report.Failures == 0 {
		t.Errorf("port %s is taken and check does not say so:\n%s", port, out)
	}
	if os.Geteuid() != 0 {
		return // init asks for root before it looks further
	}
	binaries := t.TempDir()
	for _, daemon := range []string{"control", "agent", "proxy"} {
		if err := os.WriteFile(binaries+"/skiff-"+daemon, []byte("#!/bin/false\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := runSkiff(t, "init", "--root", root, "--binaries", binaries); err == nil || !strings.Contains(err.Error(), "is taken") || !strings.Contains(err.Error(), `"skiff check"`) {
		t.Errorf("init with a taken port: %v", err)
	}
}
