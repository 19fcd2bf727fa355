package spec

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrNoCommand says that neither the container nor its image names a program.
var ErrNoCommand = errors.New("no command specified")

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// processArgs joins command and arguments by Kubernetes' table: a command replaces
// the image's entrypoint and its arguments; arguments alone replace only the latter.
func processArgs(config *runtimeapi.ContainerConfig, image ocispec.ImageConfig) ([]string, error) {
	command, args := config.GetCommand(), config.GetArgs()
	if len(command) == 0 {
		if len(args) == 0 {
			args = image.Cmd
		}
		// An image may switch off its base's entrypoint by one empty string.
		if !(len(image.Entrypoint) == 1 && image.Entrypoint[0] == "") {
			command = image.Entrypoint
		}
	}
	if len(command)+len(args) == 0 {
		return nil, ErrNoCommand
	}
	return slices.Concat(command, args), nil
}

func workingDir(config *runtimeapi.ContainerConfig, image ocispec.ImageConfig) string {
	for _, dir := range []string{config.GetWorkingDir(), image.WorkingDir} {
		if dir != "" {
			return dir
		}
	}
	return "/"
}

func withProcess(args []string, cwd string, tty bool) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		s.Process.Args, s.Process.Cwd, s.Process.Terminal = args, cwd, tty
		return nil
	}
}

// withEnv sets, each overriding those before: defaults, the image's, the container's variables.
func withEnv(in Input) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		env := []string{defaultPath}
		if in.Container.GetTty() {
			env = append(env, "TERM=xterm")
		}
		if in.Name != "" {
			env = append(env, "HOSTNAME="+in.Name)
		}
		env = append(env, in.Image.Env...)
		for _, e := range in.Container.GetEnvs() {
			env = append(env, e.GetKey()+"="+string(e.GetValue()))
		}
		s.Process.Env = lastOfEach(env)
		return nil
	}
}

// lastOfEach keeps the first place and the last value of each variable.
func lastOfEach(env []string) []string {
	place := map[string]int{}
	var out []string
	for _, e := range env {
		key, _, _ := strings.Cut(e, "=")
		if i, ok := place[key]; ok {
			out[i] = e
			continue
		}
		place[key] = len(out)
		out = append(out, e)
	}
	return out
}

func withUser(u User) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		s.Process.User = specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.Groups}
		return nil
	}
}

// withOOMScore clamps the score to what the machine allows: without
// CAP_SYS_RESOURCE a lower one would make the OCI runtime fail to start anything.
func withOOMScore(score int64, floor *int) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		value := int(score)
		if floor != nil {
			value = max(value, *floor)
		}
		s.Process.OOMScoreAdj = &value
		return nil
	}
}
