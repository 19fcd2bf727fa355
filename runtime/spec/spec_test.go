package spec

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

// machine has everything but AppArmor and looks the same wherever the test runs.
var machine = Machine{Swap: true, Hugetlb: true, Capabilities: []string{"CAP_CHOWN", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"}, OOMScoreFloor: new(int)}

func input(change func(*Input)) Input {
	in := Input{
		ID: "c1", SandboxID: "s1", Name: "pod1", Net: "/run/s1/net", IPC: "/run/s1/ipc", UTS: "/run/s1/uts",
		Hostname: "/run/s1/hostname", Hosts: "/run/s1/hosts", Resolv: "/run/s1/resolv.conf", Shm: "/run/s1/shm",
		CgroupsPath: "/kubepods/podu1/c1", Machine: machine, User: User{Groups: []uint32{0}},
		Pod: &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "pod1", Namespace: "default", Uid: "u1"}},
		Container: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "main"}, Image: &runtimeapi.ImageSpec{Image: "busybox"},
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{}},
		},
		Image: ocispec.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}, Env: []string{"PATH=/bin", "A=image"}, WorkingDir: "/work"},
	}
	if change != nil {
		change(&in)
	}
	return in
}

func TestSpecsOfContainers(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Input){
		"plain": nil,
		"configured": func(in *Input) {
			c := in.Container
			c.Args, c.WorkingDir, c.Tty = []string{"arg"}, "/own", true
			c.Envs = []*runtimeapi.KeyValue{{Key: "A", Value: []byte("own")}, {Key: "B", Value: []byte("x=y")}}
			c.Mounts = []*runtimeapi.Mount{
				{ContainerPath: "/data/sub", HostPath: "/proc", Readonly: true},
				{ContainerPath: "/data", HostPath: "/", Readonly: true, RecursiveReadOnly: true, MountOptions: []string{"noexec"}},
				{ContainerPath: "/etc/hosts", HostPath: "/dev/null"},
			}
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{
				CpuShares: 512, CpuQuota: 20000, CpuPeriod: 100000, CpusetCpus: "0-1", MemoryLimitInBytes: 1 << 26, OomScoreAdj: -997,
				HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 1 << 21}},
			}
			in.User = User{UID: 1000, GID: 100, Groups: []uint32{100, 2000}}
			sc := c.Linux.SecurityContext
			sc.ReadonlyRootfs, sc.NoNewPrivs = true, true
			sc.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN"}, DropCapabilities: []string{"mknod", "CAP_KILL"}}
			sc.MaskedPaths, sc.ReadonlyPaths = []string{}, []string{}
		},
		"host-namespaces-on-v2": func(in *Input) {
			in.Net, in.IPC, in.UTS, in.PID = "", "", "", HostPID
			in.Machine.Unified = true
			in.Container.Linux.Resources = &runtimeapi.LinuxContainerResources{Unified: map[string]string{"memory.high": "1000000"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Generate(context.Background(), input(change))
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(s, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPrivilegedContainersAreNotConfined(t *testing.T) {
	t.Parallel()
	s, err := Generate(context.Background(), input(func(in *Input) {
		sc := in.Container.Linux.SecurityContext
		sc.Privileged = true
		sc.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if s.Linux.Seccomp != nil || len(s.Linux.MaskedPaths) > 0 || len(s.Linux.ReadonlyPaths) > 0 {
		t.Error("it is confined")
	}
	if diff := cmp.Diff(machine.Capabilities, s.Process.Capabilities.Effective); diff != "" {
		t.Error(diff)
	}
	for _, m := range s.Mounts {
		if m.Destination == "/sys" && strings.Contains(strings.Join(m.Options, ","), "ro,") {
			t.Errorf("/sys: %v", m.Options)
		}
	}
}

func TestOnlyPropertiesForSystemdReachTheRuntime(t *testing.T) {
	t.Parallel()
	const property = "org.systemd.property.TimeoutStopUSec"
	s, err := Generate(context.Background(), input(func(in *Input) {
		in.Container.Annotations = map[string]string{property: "uint64 1", "note": "mine"}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if s.Annotations[property] != "uint64 1" || s.Annotations["note"] != "" {
		t.Errorf("annotations %v", s.Annotations)
	}
}

func TestCommandsFollowKubernetesTable(t *testing.T) {
	t.Parallel()
	image := ocispec.ImageConfig{Entrypoint: []string{"entry"}, Cmd: []string{"cmd"}}
	for name, c := range map[string]struct {
		image         ocispec.ImageConfig
		command, args []string
		want          string
	}{
		"nothing given runs the image's":           {image, nil, nil, "entry cmd"},
		"a command drops the image's arguments":    {image, []string{"own"}, nil, "own"},
		"arguments replace the image's":            {image, nil, []string{"a"}, "entry a"},
		"both replace both":                        {image, []string{"own"}, []string{"a"}, "own a"},
		"an empty entrypoint is switched off":      {ocispec.ImageConfig{Entrypoint: []string{""}, Cmd: []string{"cmd"}}, nil, nil, "cmd"},
		"an image without a program is an error":   {ocispec.ImageConfig{}, nil, nil, ""},
		"arguments alone can name a whole program": {ocispec.ImageConfig{}, nil, []string{"prog", "x"}, "prog x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := processArgs(&runtimeapi.ContainerConfig{Command: c.command, Args: c.args}, c.image)
			if strings.Join(got, " ") != c.want || (c.want == "") != (err != nil) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestUsersAreFoundInTheImage(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{
		"passwd": "root:x:0:0::/root:/bin/sh\nann:x:1000:100::/:/bin/sh\n", "group": "root:x:0:\nwheel:x:10:root,ann\nusers:x:100:\n",
	} {
		if err := os.WriteFile(filepath.Join(root, "etc", file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	id := func(n int64) *runtimeapi.Int64Value { return &runtimeapi.Int64Value{Value: n} }
	type security = runtimeapi.LinuxContainerSecurityContext
	for name, c := range map[string]struct {
		sc    *security
		image string
		want  User
		fails bool
	}{
		"nobody named is root with root's groups":    {sc: &security{}, want: User{Groups: []uint32{0, 10}}},
		"the image's user by name":                   {sc: &security{}, image: "ann", want: User{UID: 1000, GID: 100, Groups: []uint32{100, 10}}},
		"the image's user and group":                 {sc: &security{}, image: "ann:0", want: User{UID: 1000, Groups: []uint32{0, 10}}},
		"the pod's user overrides the image's":       {sc: &security{RunAsUser: id(0)}, image: "ann", want: User{Groups: []uint32{0, 10}}},
		"a number without an entry has group 0":      {sc: &security{RunAsUser: id(77)}, want: User{UID: 77, Groups: []uint32{0}}},
		"the pod's groups are added":                 {sc: &security{RunAsUser: id(1000), RunAsGroup: id(5), SupplementalGroups: []int64{6, 10}}, want: User{UID: 1000, GID: 5, Groups: []uint32{5, 10, 6}}},
		"a strict policy leaves the image's out":     {sc: &security{RunAsUser: id(1000), SupplementalGroupsPolicy: runtimeapi.SupplementalGroupsPolicy_Strict, SupplementalGroups: []int64{6}}, want: User{UID: 1000, GID: 100, Groups: []uint32{100, 6}}},
		"a name that is not in the image fails":      {sc: &security{RunAsUsername: "bob"}, fails: true},
		"a group without a user fails":               {sc: &security{RunAsGroup: id(5)}, image: "ann", fails: true},
		"a group's name that is not there fails too": {sc: &security{}, image: "ann:nogroup", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ResolveUser(root, c.sc, ocispec.ImageConfig{User: c.image})
			if (err != nil) != c.fails {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" && !c.fails {
				t.Error(diff)
			}
		})
	}
}

func TestWrongMountsAreErrors(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]*runtimeapi.Mount{
		"recursive read-only and writable":   {ContainerPath: "/x", HostPath: "/proc", RecursiveReadOnly: true},
		"recursive read-only and propagated": {ContainerPath: "/x", HostPath: "/proc", Readonly: true, RecursiveReadOnly: true, Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := Generate(context.Background(), input(func(in *Input) { in.Container.Mounts = []*runtimeapi.Mount{m} })); err == nil {
				t.Error("no error")
			}
		})
	}
}
