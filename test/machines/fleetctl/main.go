// Command fleetctl boots a fleet of test machines that stays until it is taken
// down, for people to look around in.
//
//	go run ./test/machines/fleetctl [-qemu] up FOLDER [MACHINES]
//	go run ./test/machines/fleetctl play FOLDER PLAYBOOK [FLAG...]
//	go run ./test/machines/fleetctl publish FOLDER PACKAGE...
//	go run ./test/machines/fleetctl down FOLDER
//
// FOLDER is where it lies; its name begins with skm-. Machines are systemd-nspawn
// containers, with -qemu virtual machines.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/skiff-run/skiff/test/machines/fleet"
)

func main() {
	var kind fleet.Kind = fleet.Nspawn{}
	flag.BoolFunc("qemu", "virtual machines", func(string) error { kind = fleet.QEMU{}; return nil })
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, kind, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleetctl:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kind fleet.Kind, arguments []string) error {
	if len(arguments) < 2 {
		return fmt.Errorf("usage: fleetctl [-qemu] up FOLDER [MACHINES] | play FOLDER PLAYBOOK [FLAG...] | publish FOLDER PACKAGE... | down FOLDER")
	}
	verb, rest := arguments[0], arguments[2:]
	folder, err := filepath.Abs(arguments[1])
	if err != nil {
		return err
	}
	switch verb {
	case "up":
		machines := 3
		if len(rest) > 0 {
			if machines, err = strconv.Atoi(rest[0]); err != nil || machines < 1 || machines > 9 {
				return fmt.Errorf("%q is not a number of machines from 1 to 9", rest[0])
			}
		}
		// What a killed run left there.
		if err := fleet.Down(folder); err != nil {
			return err
		}
		f, err := fleet.Boot(ctx, folder, kind, machines)
		if err != nil {
			return err
		}
		for _, m := range f.Machines {
			fmt.Println(m.Name, m.Address)
		}
		return nil
	case "play":
		f, err := fleet.Open(folder, kind)
		if err != nil {
			return err
		}
		if len(rest) == 0 {
			return fmt.Errorf("which playbook? ansible/playbooks has them, such as site.yml")
		}
		_, said, err := f.Playbook(ctx, rest[0], rest[1:]...)
		fmt.Print(said)
		return err
	case "publish":
		f, err := fleet.Open(folder, kind)
		if err != nil {
			return err
		}
		return f.Publish(ctx, rest...)
	case "down":
		return fleet.Down(folder)
	default:
		return fmt.Errorf("%q is none of up, play, publish and down", verb)
	}
}
