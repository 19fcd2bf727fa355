package apiserver

import (
	"io"
	"net/http"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/kube-openapi/pkg/spec3"
)

// document is what a client sees of a description of the API.
type document struct {
	status                         int
	contentType, etag, vary, cache string
	body                           string
}

// A client must not notice that a description was dropped and built again:
// kubectl keeps what it got under the ETag.
func TestDescriptionsAreTheSameAfterADrop(t *testing.T) {
	t.Parallel()
	server := serve(t, t.TempDir(), nil)
	client, err := rest.HTTPClientFor(server.admin)
	if err != nil {
		t.Fatal(err)
	}
	get := func(path, accept, etag string) document {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.admin.Host+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept", accept)
		if etag != "" {
			request.Header.Set("If-None-Match", etag)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		header := response.Header
		return document{response.StatusCode, header.Get("Content-Type"), header.Get("Etag"), strings.Join(header.Values("Vary"), ","), header.Get("Cache-Control"), string(body)}
	}
	if server.descriptions.v2.built != nil || server.descriptions.v3.built != nil {
		t.Error("descriptions that nobody asked for are kept")
	}
	for _, test := range []struct{ path, accept, contentType string }{
		{"/openapi/v2", "application/json", "application/json"},
		{"/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"},
		{"/openapi/v3", "application/json", "application/json"},
		{"/openapi/v3/api/v1", "application/json", "application/json"},
		{"/openapi/v3/apis/apps/v1", "application/json", "application/json"},
		{"/openapi/v3/apis/apps/v1", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf", "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"},
	} {
		before := get(test.path, test.accept, "")
		if before.status != http.StatusOK || before.contentType != test.contentType || before.etag == "" || len(before.body) < 500 {
			t.Errorf("%s as %s: got %d, %s, ETag %q, %d bytes", test.path, test.accept, before.status, before.contentType, before.etag, len(before.body))
		}
		server.descriptions.drop()
		if unchanged := get(test.path, test.accept, before.etag); unchanged.status != http.StatusNotModified || unchanged.body != "" {
			t.Errorf("%s as %s: got %d and %d bytes for the ETag of the dropped document, want 304", test.path, test.accept, unchanged.status, len(unchanged.body))
		}
		server.descriptions.drop()
		if after := get(test.path, test.accept, ""); after != before {
			t.Errorf("%s as %s changed: %d bytes with ETag %s, then %d bytes with ETag %s", test.path, test.accept, len(before.body), before.etag, len(after.body), after.etag)
		}
	}
	if got := get("/openapi/v2", "text/html", ""); got.status != http.StatusNotAcceptable {
		t.Errorf("text/html: got %d, want 406", got.status)
	}

	// What kubectl explain and kubectl apply read, through their own client.
	discoverer, err := discovery.NewDiscoveryClientForConfig(server.admin)
	if err != nil {
		t.Fatal(err)
	}
	swagger, err := discoverer.OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	if swagger.Info.Title != "Kubernetes" || !defines(swagger, "io.k8s.api.apps.v1.Deployment") {
		t.Errorf("OpenAPI v2 titled %q defines no Deployment", swagger.Info.Title)
	}
	index, err := discoverer.OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	server.descriptions.drop()
	data, err := index["apis/apps/v1"].Schema("application/json")
	if err != nil {
		t.Fatal(err)
	}
	var apps spec3.OpenAPI
	if err := apps.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	if schema := apps.Components.Schemas["io.k8s.api.apps.v1.Deployment"]; schema == nil || schema.Description == "" {
		t.Error("OpenAPI v3 of apps/v1 does not explain Deployment")
	}
}

func defines(document *openapi_v2.Document, name string) bool {
	for _, schema := range document.Definitions.AdditionalProperties {
		if schema.Name == name {
			return true
		}
	}
	return false
}
