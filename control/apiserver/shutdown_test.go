package apiserver

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func TestWatchesEndWhenTheServerStops(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir(), nil)
	client, err := kubernetes.NewForConfig(s.admin)
	if err != nil {
		t.Fatal(err)
	}
	watch, err := client.CoreV1().ConfigMaps("").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	ended := make(chan error, 1)
	go func() { ended <- s.stop() }()
	// Without being told, the watch would hold the server for a minute.
	limit := time.After(30 * time.Second)
	for open := true; open; {
		select {
		case _, open = <-watch.ResultChan():
		case <-limit:
			t.Fatal("the watch goes on")
		}
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-limit:
		t.Fatal("the server does not end")
	}
}
