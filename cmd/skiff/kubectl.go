package main

import (
	"os"
	"path/filepath"

	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"

	"github.com/skiff-run/skiff/cmd/skiff/up"
)

// kubectl runs the built-in kubectl and returns its exit code. It differs from
// the stock one in a single point: without KUBECONFIG and without
// ~/.kube/config it uses the local cluster's admin kubeconfig.
func kubectl(args []string) int {
	if os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "" {
		admin := up.Layout{Root: "/"}.AdminKubeconfig()
		if _, err := os.Stat(clientcmd.RecommendedHomeFile); err != nil {
			if _, err := os.Stat(admin); err == nil {
				os.Setenv(clientcmd.RecommendedConfigPathEnvVar, admin)
			}
		}
	}
	os.Args = append([]string{filepath.Base(args[0])}, args[1:]...)
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	command := cmd.NewDefaultKubectlCommandWithArgs(cmd.KubectlOptions{
		PluginHandler: cmd.NewDefaultPluginHandler([]string{"kubectl"}),
		Arguments:     os.Args,
		ConfigFlags:   genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50),
		IOStreams:     streams,
	})
	return cli.Run(command)
}
