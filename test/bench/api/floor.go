package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// floorVariable tells a child of this program to serve at an address.
const floorVariable = "SKIFF_BENCH_FLOOR"

// startFloor starts the server that does nothing, as a process of its own like
// the real one.
func startFloor(ctx context.Context) (config *rest.Config, pid int, stop func(), err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, 0, nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, 0, nil, err
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return nil, 0, nil, err
	}
	child := exec.CommandContext(ctx, program)
	child.Env = append(os.Environ(), floorVariable+"="+address)
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		return nil, 0, nil, err
	}
	stop = func() {
		_ = child.Process.Kill()
		_ = child.Wait() // it was killed
	}
	for range 500 {
		connection, err := net.Dial("tcp", address)
		if err == nil {
			return &rest.Config{Host: "https://" + address, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, child.Process.Pid, stop, connection.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	return nil, 0, nil, fmt.Errorf("the server that does nothing does not listen on %s", address)
}

// serveFloor answers every request with an object made beforehand.
func serveFloor(ctx context.Context, address string) error {
	answers := map[string][]byte{}
	for resource, object := range map[string]runtime.Object{
		"pods": pod("floor"), "configmaps": configMap("floor"),
		"namespaces":      &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "floor"}},
		"serviceaccounts": &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}},
	} {
		encoder := scheme.Codecs.EncoderForVersion(protobuf.NewSerializer(scheme.Scheme, scheme.Scheme), corev1.SchemeGroupVersion)
		data, err := runtime.Encode(encoder, object)
		if err != nil {
			return err
		}
		answers[resource] = data
	}
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	server := &http.Server{
		Addr: address, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			_, _ = io.Copy(io.Discard, request.Body)
			parts := strings.Split(strings.Trim(request.URL.Path, "/"), "/")
			answer := answers["namespaces"]
			if len(parts) >= 5 {
				answer = answers[parts[4]]
			}
			w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
			_, _ = w.Write(answer) // the client is gone when this fails
		}),
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ListenAndServeTLS("", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
