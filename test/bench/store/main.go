// Command store measures raftstore beside etcd: three members as three
// processes each, one store after the other, with the same workloads.
//
//	go build -o etcd go.etcd.io/etcd/server/v3 && go run . --etcd ./etcd
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if len(os.Args) > 1 && os.Args[1] == "member" {
		err = serveMember(ctx, os.Args[2:])
	} else {
		err = run(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "store:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	s := &suite{out: os.Stderr}
	etcd := pflag.String("etcd", "", "etcd's program; without it only raftstore is measured")
	dir := pflag.String("dir", "", "folder for both stores' data; a temporary one if empty")
	pflag.DurationVar(&s.seconds, "seconds", 5*time.Second, "length of each workload")
	pflag.IntVar(&s.kills, "kills", 50, "how often the leader is killed")
	pflag.IntVar(&s.objects, "objects", 100_000, "objects that are stored for memory and restart")
	pflag.DurationVar(&s.rest, "rest", time.Minute, "how long the stores are watched at rest")
	pflag.BoolVar(&s.onlyOutages, "only-outages", false, "measure nothing but killed leaders and transfers")
	pflag.Parse()
	folder := *dir
	if folder == "" {
		var err error
		if folder, err = os.MkdirTemp("", "skiff-bench-store-"); err != nil {
			return err
		}
		defer os.RemoveAll(folder)
	}
	ours, err := newSkiffCluster(folder)
	if err != nil {
		return err
	}
	if err := s.measure(ctx, ours); err != nil {
		return err
	}
	if *etcd != "" {
		theirs, err := newEtcdCluster(*etcd, folder, members)
		if err != nil {
			return err
		}
		if err := s.measure(ctx, theirs); err != nil {
			return err
		}
	}
	s.report(os.Stdout, "skiff", "etcd")
	return nil
}
