package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/skiff-run/skiff/test/fleet"
	"github.com/skiff-run/skiff/test/host"
)

// images is the folder of the registry's images, which outlives the cluster.
const images = "/srv/skiff-images"

func up(ctx context.Context, f *fleet.Fleet, arguments []string) (err error) {
	workers := 0
	if len(arguments) > 0 {
		if workers, err = strconv.Atoi(arguments[0]); err != nil {
			return fmt.Errorf("workers: %q is no number", arguments[0])
		}
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: hosts are namespaces; run it with sudo")
	}
	begin := time.Now()
	if f.Network, err = host.New("skiff-cluster", folder, host.DefaultSubnet, host.ByItself); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\nThe hosts are left as they are, logs in %s/*/var/log/skiff; take them away with make cluster-down", err, folder)
		}
	}()
	if err := links(f); err != nil {
		return err
	}
	if err := f.Uplink(uplink); err != nil {
		return err
	}
	if err := f.Registry(ctx, images); err != nil {
		return err
	}
	step := func(what string) { fmt.Printf("  %-36s %6.1f s\n", what, time.Since(begin).Seconds()) }
	step("switch and registry")
	for i := range 3 + workers {
		name, role := fmt.Sprintf("host%d", i+1), fleet.Control
		if i >= 3 {
			name, role = fmt.Sprintf("worker%d", i-2), fleet.Worker
		}
		if err := start(ctx, f, name, role); err != nil {
			return err
		}
		step(name + " is Ready")
	}
	kubeconfig := f.Hosts[0].Path("etc/skiff/admin.conf")
	fmt.Printf(`
The cluster runs. From this machine:
  export KUBECONFIG=%s
  kubectl get nodes -o wide          # or bin/skiff kubectl get nodes -o wide
  kubectl create deployment web --image=nginx:1.25 --replicas=6
  kubectl expose deployment web --port=80
On its hosts, and against them:
  hack/cluster.sh exec host2 bash    # a shell on a host: skiff status, kubectl get pods -o wide
  hack/cluster.sh kill host1 control # and look at skiff status on another host
  hack/cluster.sh unplug host3       # its pods run elsewhere after 30 s; plug puts it back
  hack/cluster.sh off host2          # on switches it on again
  hack/cluster.sh                    # what else there is
Take it away with make cluster-down. Logs: %s/HOST/var/log/skiff
`, kubeconfig, folder)
	return nil
}

// links makes a folder with the names people type.
func links(f *fleet.Fleet) error {
	if err := os.MkdirAll(filepath.Join(folder, "bin"), 0o755); err != nil {
		return err
	}
	return os.Symlink(filepath.Join(f.Binaries, "skiff"), filepath.Join(folder, "bin", "kubectl"))
}

// start makes a host and founds the cluster on it, or joins it.
func start(ctx context.Context, f *fleet.Fleet, name, role string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	h, err := f.Add(name)
	if err != nil {
		return err
	}
	if len(f.Hosts) == 1 {
		_, err = f.Found(ctx, h)
		return err
	}
	_, err = f.Join(ctx, h, f.Hosts[0], role)
	return err
}

// down switches everything off and removes it. Pods need no farewell: what
// they were goes with their hosts.
func down(ctx context.Context) error {
	n, err := host.Open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Println("nothing is running")
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		return err
	}
	fmt.Println("the cluster is gone, with its data; its registry's images stay in " + images)
	return nil
}
