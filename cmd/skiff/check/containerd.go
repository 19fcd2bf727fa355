package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	introspection "github.com/containerd/containerd/api/services/introspection/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

// supported are containerd's releases that Skiff is tested with.
var supported = []string{"1.6", "1.7", "2.0", "2.1", "2.2", "2.3", "2.4"}

// neededPlugins of containerd, by type and id. The snapshotter's comes with them.
var neededPlugins = map[string]string{
	"io.containerd.content.v1/content":        "images cannot be kept",
	"io.containerd.metadata.v1/bolt":          "containers cannot be kept",
	"io.containerd.runtime.v2/task":           "containers cannot be started",
	"io.containerd.service.v1/tasks-service":  "containers cannot be started",
	"io.containerd.service.v1/leases-service": "images cannot be pulled",
}

// runtimeInfo is what containerd says of itself.
type runtimeInfo struct {
	version string
	// plugins are type/id with what they complain of, "" when they work.
	plugins map[string]string
}

func askContainerd(ctx context.Context, socket string) (*runtimeInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	// The attempt to connect tells better what is wrong than gRPC does.
	attempt, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	attempt.Close()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	v, err := versionapi.NewVersionClient(conn).Version(ctx, &emptypb.Empty{})
	if err != nil {
		return nil, err
	}
	answer, err := introspection.NewIntrospectionClient(conn).Plugins(ctx, &introspection.PluginsRequest{})
	if err != nil {
		return nil, err
	}
	info := &runtimeInfo{version: v.Version, plugins: map[string]string{}}
	for _, p := range answer.Plugins {
		info.plugins[p.Type+"/"+p.ID] = p.InitErr.GetMessage()
	}
	return info, nil
}

// programs Skiff calls, with the Debian package of each.
var programs = []struct{ name, debian, without string }{
	{"runc", "runc", "no container starts"},
	{"nft", "nftables", "pods and services have no network"},
	{"conntrack", "conntrack", "connections to endpoints that are gone hang"},
}

func checkContainerd(ctx context.Context, e *examination) {
	e.programs(ctx)
	if e.containerd(ctx) {
		e.containerdConfig()
	}
}

func (e *examination) programs(ctx context.Context) {
	all := slices.Clone(programs)
	switch e.proxy.Mode {
	case "ipvs":
		all = append(all, struct{ name, debian, without string }{"ipset", "ipset", "the configured proxy mode ipvs does not work"})
	case "iptables":
		all = append(all, struct{ name, debian, without string }{"iptables-restore", "iptables", "the configured proxy mode iptables does not work"})
	}
	for _, p := range all {
		switch path, err := e.lookPath(p.name); {
		case err != nil:
			e.fail(p.name, "is not installed: "+p.without, "apt-get install "+p.debian)
		case p.name == "runc":
			e.runc(ctx, path)
		default:
			e.ok(p.name, "%s", path)
		}
	}
}

func (e *examination) runc(ctx context.Context, path string) {
	output, err := e.run(ctx, "", path, "--version")
	if err != nil {
		e.fail("runc", path+" does not run: "+err.Error(), "apt-get install --reinstall runc")
		return
	}
	version := strings.TrimPrefix(firstLine(output), "runc version ")
	if strings.HasPrefix(version, "0.") || strings.HasPrefix(version, "1.0.") {
		e.warn("runc", version+": older than 1.1, the oldest Skiff is tested with", "apt-get install runc")
		return
	}
	e.ok("runc", "%s", version)
}

// containerd says whether one answers, and whether it fits. It returns whether
// its configuration is worth a look.
func (e *examination) containerd(ctx context.Context) bool {
	socket := e.agent.ContainerdAddress
	if !e.rootOnly("containerd") {
		return false
	}
	info, err := e.runtime(ctx, e.path(socket))
	switch {
	case err == nil:
		e.runtimeVersion(info.version)
		e.plugins(info)
		return true
	case errors.Is(err, os.ErrPermission):
		e.fail("containerd", socket+" may not be used: "+err.Error(), "ls -l "+socket)
		return false
	}
	if _, lookErr := e.lookPath("containerd"); lookErr != nil {
		e.fail("containerd", "is not installed: pods cannot run", "apt-get install containerd")
		return false
	}
	found := fmt.Sprintf("installed, but nobody answers at %s (%v)", socket, err)
	switch {
	case e.systemd() && e.Root == "/":
		e.fail("containerd", found, "systemctl enable --now containerd", "journalctl -u containerd -n 20   # if it does not stay")
	case e.installed:
		e.fail("containerd", found, "skiff down && "+e.command(), "tail -n 20 "+e.Log("containerd"))
	default:
		output, _ := e.run(ctx, "", "containerd", "--version") // which one will be started, if it says
		e.ok("containerd", "%s; does not run yet, %s starts it", containerdVersion(output), e.command())
	}
	return false
}

// containerdVersion finds the version in what containerd --version prints.
func containerdVersion(output string) string {
	if f := strings.Fields(output); len(f) >= 3 {
		return strings.TrimPrefix(f[2], "v")
	}
	return "installed"
}

func (e *examination) runtimeVersion(version string) {
	version = strings.TrimPrefix(version, "v")
	parts := strings.SplitN(version, ".", 3)
	release := strings.Join(parts[:min(2, len(parts))], ".")
	switch {
	case slices.Contains(supported, release):
		e.ok("containerd", "%s answers at %s", version, e.agent.ContainerdAddress)
	case strings.HasPrefix(release, "0.") || slices.Contains([]string{"1.0", "1.1", "1.2", "1.3", "1.4", "1.5"}, release):
		e.fail("containerd", version+": older than 1.6, pods do not run", "apt-get update && apt-get install containerd")
	default:
		e.warn("containerd", version+": not among the releases Skiff is tested with ("+strings.Join(supported, ", ")+")")
	}
}

// plugins finds those that Skiff needs and that do not work.
func (e *examination) plugins(info *runtimeInfo) {
	snapshotter := "io.containerd.snapshotter.v1/" + e.agent.Snapshotter
	needed := map[string]string{snapshotter: "no container starts"}
	for name, without := range neededPlugins {
		needed[name] = without
	}
	var broken []string
	for name, without := range needed {
		complaint, known := info.plugins[name]
		switch {
		case !known:
			broken = append(broken, fmt.Sprintf("%s is missing: %s", name, without))
		case complaint != "":
			broken = append(broken, fmt.Sprintf("%s does not work: %s (%s)", name, without, complaint))
		}
	}
	if len(broken) == 0 {
		e.ok("plugins", "snapshotter %s and what else pods need work; CRI is not needed", e.agent.Snapshotter)
		return
	}
	slices.Sort(broken)
	e.fail("plugins", strings.Join(broken, "; "), "grep -n disabled_plugins /etc/containerd/config.toml", "ctr plugins ls", "systemctl restart containerd")
}

// containerdConfig finds settings that will surprise somebody.
func (e *examination) containerdConfig() {
	for _, line := range e.lines("etc/containerd/config.toml") {
		line = strings.TrimSpace(line)
		key, value, _ := strings.Cut(line, "=")
		if strings.TrimSpace(key) == "config_path" && strings.Trim(strings.TrimSpace(value), `"'`) != "" &&
			!strings.Contains(value, e.agent.RegistryConfigDir) {
			e.warn("registries", fmt.Sprintf("containerd's config_path is %s, but Skiff reads registries' hosts.toml from %s", strings.TrimSpace(value), e.agent.RegistryConfigDir),
				"ln -s "+firstPath(value)+" "+e.agent.RegistryConfigDir)
		}
		if strings.HasPrefix(line, `[plugins."io.containerd.grpc.v1.cri".registry.mirrors`) || strings.HasPrefix(line, `[plugins."io.containerd.grpc.v1.cri".registry.configs`) {
			e.warn("registries", "containerd's configuration has mirrors or credentials for its CRI plugin, which Skiff does not use: "+line,
				"mkdir -p "+e.agent.RegistryConfigDir+"/docker.io   # and write its hosts.toml; credentials belong into pods' imagePullSecrets")
			return
		}
	}
}

func firstPath(value string) string {
	first, _, _ := strings.Cut(strings.Trim(strings.TrimSpace(value), `"'`), ":")
	return first
}
