package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
)

// shop is what the verbs work on: a deployment, its configuration, a pod to
// enter and a pod that talks.
const shop = `apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {part: shop}}
data: {colour: blue}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, labels: {part: shop}}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: nginx, image: "nginx:1.25", ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: box}
spec: {containers: [{name: box, image: busybox, command: [sleep, "3600"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec: {containers: [{name: talker, image: busybox, command: [sh, -c, "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.1; done"]}]}
`

// verbs holds one step for each group of kubectl's verbs.
type verbs struct {
	*Host
	dir      string
	manifest string
}

// testVerbs goes through kubectl on a host whose cluster runs.
func testVerbs(t *testing.T, h *Host) {
	v := &verbs{Host: h, dir: t.TempDir()}
	v.manifest = v.file(t, "shop.yaml", shop)
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"apply, diff, replace, server-side apply and dry-run", v.apply},
		{"patch, label, annotate, edit, set", v.change},
		{"get in every format, by selectors and in pages", v.get},
		{"events and watches", v.watch},
		{"rollout pause, resume, restart, history", v.rollout},
		{"exec, attach, logs and cp by WebSocket and SPDY", v.streams},
		{"port-forward and proxy", v.forward},
		{"create, auth, token", v.access},
		{"what the server knows of itself", v.discovery},
		{"nodes: describe, cordon, taint, drain", v.nodes},
		{"wrong manifests are answered as Kubernetes answers them", v.wrong},
		{"delete and wait", v.remove},
	} {
		t.Run(step.name, step.run)
	}
}

func (v *verbs) file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(v.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// says runs kubectl and wants every text in what it prints.
func (v *verbs) says(t *testing.T, arguments string, wants ...string) string {
	t.Helper()
	output, err := v.TryKubectl(strings.Fields(arguments)...)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range wants {
		if !strings.Contains(output, want) {
			t.Errorf("kubectl %s does not say %q:\n%s", arguments, want, output)
		}
	}
	return output
}

// refuses runs kubectl, which must fail and say every text.
func (v *verbs) refuses(t *testing.T, arguments string, wants ...string) {
	t.Helper()
	output, err := v.TryKubectl(strings.Fields(arguments)...)
	if err == nil {
		t.Errorf("kubectl %s is not refused:\n%s", arguments, output)
		return
	}
	for _, want := range wants {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("kubectl %s does not say %q:\n%v", arguments, want, err)
		}
	}
}

func (v *verbs) apply(t *testing.T) {
	v.says(t, "apply -f "+v.manifest, "configmap/settings created", "deployment.apps/shop created", "pod/box created")
	v.says(t, "apply -f "+v.manifest, "configmap/settings unchanged", "deployment.apps/shop unchanged")
	v.says(t, "rollout status deployment/shop --timeout=120s", "successfully rolled out")
	red := v.file(t, "red.yaml", strings.Replace(shop, "blue", "red", 1))
	if _, err := v.TryKubectl("diff", "-f", red); err == nil || !strings.Contains(err.Error(), "+  colour: red") {
		t.Errorf("diff: %v", err)
	}
	v.says(t, "apply --dry-run=server -f "+red, "configmap/settings configured (server dry run)")
	v.says(t, "apply --dry-run=client -f "+red, "configmap/settings configured (dry run)")
	v.says(t, "get configmap settings -o jsonpath={.data.colour}", "blue")
	v.says(t, "apply --server-side -f "+v.manifest, "configmap/settings serverside-applied")
	v.refuses(t, "apply --server-side --field-manager=painter -f "+red, `conflict with "kubectl": .data.colour`)
	v.says(t, "apply --server-side --field-manager=painter --force-conflicts -f "+red, "configmap/settings serverside-applied")
	v.says(t, "get configmap settings -o yaml --show-managed-fields", "manager: painter", "operation: Apply", "colour: red")
	v.says(t, "replace -f "+v.file(t, "settings.yaml", strings.SplitN(shop, "---", 2)[0]), "configmap/settings replaced")
	v.says(t, "get configmap settings -o jsonpath={.data.colour}", "blue")
	v.says(t, "apply view-last-applied deployment/shop", "kind: Deployment")
}

func (v *verbs) change(t *testing.T) {
	v.says(t, `patch configmap settings -p {"data":{"size":"1"}}`, "patched")
	v.says(t, `patch configmap settings --type=json -p [{"op":"replace","path":"/data/size","value":"2"}]`, "patched")
	v.says(t, "get configmap settings -o jsonpath={.data.size}", "2")
	v.says(t, `patch configmap settings --type=merge -p {"data":{"size":null}}`, "patched")
	v.says(t, `patch deployment shop --subresource=scale --type=merge -p {"spec":{"replicas":3}}`, "scale.autoscaling/shop patched")
	v.says(t, "label configmap settings tier=front", "labeled")
	v.refuses(t, "label configmap settings tier=back", "already has a value (front), and --overwrite is false")
	v.says(t, "label configmap settings tier-", "unlabeled")
	v.says(t, "annotate configmap settings note=kept", "annotated")
	editor := v.file(t, "editor", "#!/bin/sh\nsed -i 's/blue/green/' \"$1\"\n")
	if err := os.Chmod(editor, 0o700); err != nil {
		t.Fatal(err)
	}
	if output, err := v.Try("env", "KUBE_EDITOR="+editor, filepath.Join(v.Binaries, "skiff"), "kubectl", "edit", "configmap", "settings"); err != nil || !strings.Contains(output, "edited") {
		t.Errorf("edit: %s %v", output, err)
	}
	v.says(t, "get configmap settings -o jsonpath={.data.colour}", "green")
	v.says(t, "set env deployment/shop COLOUR=green", "env updated")
	v.says(t, "set resources deployment/shop --requests=cpu=10m,memory=16Mi", "resource requirements updated")
	v.says(t, "rollout status deployment/shop --timeout=120s", "successfully rolled out")
}

func (v *verbs) get(t *testing.T) {
	v.says(t, "get pods -o wide", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES", v.Name)
	v.says(t, "get deployments -o wide", "UP-TO-DATE", "AVAILABLE", "CONTAINERS", "IMAGES", "SELECTOR", "app=shop")
	v.says(t, "get nodes -o wide", "Ready", "control-plane", "v1.37.2+skiff", "INTERNAL-IP", "containerd://")
	v.says(t, "get services", "CLUSTER-IP", "EXTERNAL-IP", "10.96.0.1", "443/TCP")
	v.says(t, "get pod box -o yaml", "apiVersion: v1", "kind: Pod", "phase: Running")
	var pod struct{ Kind string }
	if err := json.Unmarshal([]byte(v.says(t, "get pod box -o json")), &pod); err != nil || pod.Kind != "Pod" {
		t.Errorf("json: %v %v", pod, err)
	}
	v.says(t, "get pods -o custom-columns=N:.metadata.name,IP:.status.podIP", "box", "10.244.")
	v.says(t, "get pods -o name", "pod/box", "pod/talker")
	v.says(t, "get pods box -o go-template={{.spec.nodeName}}", v.Name)
	v.says(t, "get pods --show-labels --all-namespaces --sort-by=.metadata.name", "NAMESPACE", "pod-template-hash=")
	testenv.Eventually(t, time.Minute, func() bool { // the last of the old ones may still be stopping
		return strings.Count(v.says(t, "get pods -l app=shop --field-selector=status.phase=Running -o name"), "pod/shop-") == 3
	}, "selectors of labels and fields do not find three pods")
	v.says(t, "get pods --chunk-size=1", "box", "talker")
	page := v.says(t, "get --raw /api/v1/namespaces/default/pods?limit=2")
	var list struct {
		Metadata struct {
			Continue           string
			RemainingItemCount int
		}
		Items []json.RawMessage
	}
	if err := json.Unmarshal([]byte(page), &list); err != nil || len(list.Items) != 2 || list.Metadata.Continue == "" || list.Metadata.RemainingItemCount < 1 {
		t.Errorf("a page: %v\n%s", err, page)
	}
	if _, err := v.TryKubectl("get", "pod", "nosuch"); err == nil || !strings.Contains(err.Error(), `Error from server (NotFound): pods "nosuch" not found`) {
		t.Errorf("a pod that is not there: %v", err)
	}
	if _, err := v.TryKubectl("get", "pod", "box", "-v=8"); err != nil {
		t.Error(err)
	}
	_, told, err := v.both("kubectl", "get", "pod", "box", "-v=8")
	if want := "https://192.0.2.1:6443/api/v1/namespaces/default/pods/box"; err != nil || !strings.Contains(told, want) {
		t.Errorf("-v=8 does not tell %s: %v\n%s", want, err, told)
	}
}

// both runs skiff and returns standard output and standard error.
func (v *verbs) both(arguments ...string) (output, told string, err error) {
	ctx, cancel := context.WithTimeout(v.t.Context(), commandLimit)
	defer cancel()
	var out, problem bytes.Buffer
	command := v.Command(ctx, filepath.Join(v.Binaries, "skiff"), arguments...)
	command.Stdout, command.Stderr = &out, &problem
	err = command.Run()
	return out.String(), problem.String(), err
}

func (v *verbs) watch(t *testing.T) {
	events := v.Kubectl("get", "events", "-o", "go-template={{range .items}}{{or .source.component .reportingComponent}} {{.reason}}\n{{end}}")
	for component, reasons := range map[string][]string{
		"default-scheduler": {"Scheduled"}, "kubelet": {"Pulling", "Pulled", "Created", "Started"},
		"deployment-controller": {"ScalingReplicaSet"}, "replicaset-controller": {"SuccessfulCreate"},
	} {
		for _, reason := range reasons {
			found := false
			for _, line := range strings.Split(events, "\n") {
				fields := strings.Fields(line)
				found = found || len(fields) == 2 && fields[0] == component && fields[1] == reason
			}
			if !found {
				t.Errorf("no event %s of %s:\n%s", reason, component, events)
			}
		}
	}
	watched := v.follow(t, "get", "events", "--watch-only")
	v.says(t, "run passer-by --image=busybox --restart=Never -- true", "created")
	watched.until("passer-by")
	stream := v.follow(t, "get", "--raw", "/api/v1/namespaces/default/pods?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan")
	stream.until(`"type":"ADDED"`)
	stream.until(`"k8s.io/initial-events-end":"true"`)
	v.says(t, "delete pod passer-by", "deleted")
	stream.until(`"type":"DELETED"`)
}

// following is a command that runs on and what it has printed.
type following struct {
	t   *testing.T
	out *output
}

// follow starts the built-in kubectl and ends it with the test.
func (v *verbs) follow(t *testing.T, arguments ...string) *following {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	command := v.Command(ctx, filepath.Join(v.Binaries, "skiff"), append([]string{"kubectl"}, arguments...)...)
	f := &following{t: t, out: &output{}}
	command.Stdout, command.Stderr = f.out, f.out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = command.Wait() // killed
	})
	return f
}

// until waits until the command has printed the text.
func (f *following) until(want string) {
	f.t.Helper()
	said := false
	defer func() {
		if !said {
			f.t.Logf("it printed:\n%s", f.out)
		}
	}()
	testenv.Eventually(f.t, time.Minute, func() bool {
		said = strings.Contains(f.out.String(), want)
		return said
	}, "nothing says %q", want)
}

func (v *verbs) rollout(t *testing.T) {
	v.says(t, "rollout pause deployment/shop", "paused")
	v.says(t, "set image deployment/shop nginx=nginx:1.26", "image updated")
	before := v.says(t, "get replicasets -l app=shop -o name")
	v.says(t, "get deployment shop -o jsonpath={.status.conditions[*].reason}")
	v.says(t, "rollout resume deployment/shop", "resumed")
	v.says(t, "rollout status deployment/shop --timeout=120s", "successfully rolled out")
	if after := v.says(t, "get replicasets -l app=shop -o name"); strings.Count(after, "/") != strings.Count(before, "/")+1 {
		t.Errorf("replica sets before\n%safter\n%s", before, after)
	}
	v.says(t, "annotate deployment/shop kubernetes.io/change-cause=newer", "annotated")
	v.Eventually(time.Minute, "newer", "rollout", "history", "deployment/shop")
	v.says(t, "rollout history deployment/shop --revision=1", "nginx:1.25")
	v.says(t, "rollout restart deployment/shop", "restarted")
	v.says(t, "rollout status deployment/shop --timeout=120s", "successfully rolled out")
	v.says(t, "rollout undo deployment/shop --to-revision=1", "rolled back")
	v.says(t, "rollout status deployment/shop --timeout=120s", "successfully rolled out")
	v.says(t, "get deployment shop -o jsonpath={.spec.template.spec.containers[0].image}", "nginx:1.25")
}

func (v *verbs) streams(t *testing.T) {
	v.says(t, "wait --for=condition=Ready pod/box pod/talker --timeout=120s", "condition met")
	skiff := filepath.Join(v.Binaries, "skiff")
	blob := v.file(t, "blob", strings.Repeat("0123456789abcdef", 1<<16)) // 1 MiB
	for _, way := range []string{"true", "false"} {
		exec := func(arguments ...string) string {
			t.Helper()
			return v.Run("env", append([]string{"KUBECTL_REMOTE_COMMAND_WEBSOCKETS=" + way, skiff, "kubectl"}, arguments...)...)
		}
		if got := exec("exec", "box", "--", "echo", "inside"); got != "inside\n" {
			t.Errorf("websockets %s: exec %q", way, got)
		}
		// A terminal for kubectl, so that -t gives the container one of the same size.
		// The size arrives a moment after the program has started.
		typed := v.file(t, "typed", `stty cols 91 rows 17
exec env KUBECTL_REMOTE_COMMAND_WEBSOCKETS=`+way+` `+skiff+` kubectl exec -it box -- \
  sh -c 'tty; for i in $(seq 300); do size=$(stty size 2>/dev/null); [ "$size" = "17 91" ] && break; sleep 0.1; done; echo "size $size"'
`)
		terminal := v.Run("sh", "-c", `script -qec "sh `+typed+`" /dev/null </dev/null`)
		if !strings.Contains(terminal, "/dev/pts/") || !strings.Contains(terminal, "size 17 91") {
			t.Errorf("websockets %s: terminal says %q", way, terminal)
		}
		exec("cp", blob, "box:/tmp/blob")
		back := filepath.Join(v.dir, "back-"+way)
		exec("cp", "box:/tmp/blob", back)
		want, _ := os.ReadFile(blob)
		if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want) {
			t.Errorf("websockets %s: the copy differs: %v", way, err)
		}
	}
	if _, err := v.TryKubectl("exec", "box", "--", "sh", "-c", "exit 7"); err == nil || !strings.Contains(err.Error(), "exit code 7") {
		t.Errorf("exit code: %v", err)
	}
	v.follow(t, "logs", "-f", "talker").until("line 20")
	v.follow(t, "attach", "talker").until("line ")
	if got := v.says(t, "logs talker --tail=2 --timestamps"); strings.Count(got, "\n") != 2 || !strings.Contains(got, "Z line ") {
		t.Errorf("tail:\n%s", got)
	}
	v.says(t, "logs -l app=shop --prefix --tail=1", "[pod/shop-")
	v.refuses(t, "logs talker --previous", `previous terminated container "talker" in pod "talker" not found`)
}

func (v *verbs) forward(t *testing.T) {
	v.says(t, "expose deployment shop --port=80 --name=counter", "service/counter exposed")
	v.says(t, "describe service counter", "Endpoints:", "10.244.")
	for port, target := range map[string]string{"18081": "service/counter", "18082": "deployment/shop"} {
		v.follow(t, "port-forward", target, port+":80").until("Forwarding from 127.0.0.1:" + port)
		testenv.Eventually(t, time.Minute, func() bool {
			page, err := v.Try("curl", "-s", "-m", "5", "http://127.0.0.1:"+port)
			return err == nil && strings.Contains(page, "Welcome to nginx!")
		}, "nothing comes through the forwarded port of %s", target)
	}
	name := v.living("app=shop")[0]
	v.says(t, "get --raw /api/v1/namespaces/default/pods/"+name+":80/proxy/", "Welcome to nginx!")
	v.says(t, "get --raw /api/v1/nodes/"+v.Name+"/proxy/healthz", "ok")
}

func (v *verbs) access(t *testing.T) {
	v.says(t, "create namespace team", "namespace/team created")
	v.says(t, "create serviceaccount robot -n team", "created")
	v.says(t, "create role reader -n team --verb=get,list --resource=pods", "created")
	v.says(t, "create rolebinding robot -n team --role=reader --serviceaccount=team:robot", "created")
	const robot = " -n team --as=system:serviceaccount:team:robot"
	v.says(t, "auth can-i list pods"+robot, "yes")
	v.refuses(t, "auth can-i delete pods"+robot, "no")
	v.says(t, "auth whoami", "kubernetes-admin")
	v.says(t, "auth can-i --list", "*.*")
	v.refuses(t, "get nodes --as=stranger", `Error from server (Forbidden): nodes is forbidden: User "stranger" cannot list resource "nodes" in API group "" at the cluster scope`)
	token := strings.TrimSpace(v.says(t, "create token robot -n team"))
	v.says(t, "get pods -n team --token="+token+" --client-certificate= --client-key= -o name")
	v.says(t, "create secret generic key -n team --from-literal=a=b", "created")
	v.says(t, "create configmap key -n team --from-literal=a=b", "created")
	v.refuses(t, "create configmap key -n team --from-literal=a=b", `configmaps "key" already exists`)
	v.says(t, "create service nodeport door -n team --tcp=80:80", "created")
	v.says(t, "delete namespace team --timeout=120s", "deleted")
	v.refuses(t, "get namespace team", "NotFound")
}

func (v *verbs) discovery(t *testing.T) {
	v.says(t, "version", "Server Version: v1.37.2+skiff")
	v.says(t, "cluster-info", "Kubernetes control plane is running at https://192.0.2.1:6443")
	v.says(t, "get componentstatuses", "scheduler", "controller-manager", "etcd-0", "Healthy")
	v.says(t, "api-resources", "deployments", "deploy", "apps/v1", "endpointslices")
	v.says(t, "api-versions", "apps/v1", "rbac.authorization.k8s.io/v1", "v1")
	v.says(t, "explain deployment.spec.strategy", "FIELD: strategy <DeploymentStrategy>", "rollingUpdate")
	v.says(t, "explain pod --recursive", "terminationGracePeriodSeconds")
	for _, path := range []string{"/healthz", "/livez", "/readyz"} {
		v.says(t, "get --raw "+path, "ok")
	}
	v.says(t, "get --raw /metrics", "apiserver_request_total")
	v.says(t, "get --raw /openapi/v2", `"swagger":"2.0"`)
	v.says(t, "get --raw /openapi/v3/apis/apps/v1", `"openapi":"3.0`)
}

func (v *verbs) nodes(t *testing.T) {
	v.says(t, "describe node "+v.Name, "Roles:              control-plane", "PodCIDR:", "KubeletReady", "Allocated resources:", "Kubelet Version:            v1.37.2+skiff")
	v.says(t, "cordon "+v.Name, "cordoned")
	v.says(t, "get nodes", "Ready,SchedulingDisabled")
	v.refuses(t, "drain "+v.Name, "cannot delete Pods that declare no controller (use --force to override)")
	v.says(t, "uncordon "+v.Name, "uncordoned")
	v.says(t, "taint node "+v.Name+" busy=yes:NoSchedule", "tainted")
	v.says(t, "taint node "+v.Name+" busy-", "untainted")
	// At once: the fleet's limits must not keep a pod away that may go.
	name := v.living("app=shop")[0]
	eviction := v.file(t, "eviction.json", fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q,"namespace":"default"}}`, name))
	v.says(t, "create --raw /api/v1/namespaces/default/pods/"+name+"/eviction -f "+eviction, `"status":"Success"`)
	v.says(t, "rollout status deployment/shop --timeout=120s", "successfully rolled out")
}

func (v *verbs) wrong(t *testing.T) {
	bad := v.file(t, "bad.yaml", `apiVersion: apps/v1
kind: Deployment
metadata: {name: Bad_Name}
spec:
  replicas: -1
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: c}}
    spec: {containers: [{name: c, imagee: x, ports: [{containerPort: 99999}]}]}
`)
	const unknown = `unknown field "spec.template.spec.containers[0].imagee"`
	wants := []string{
		`The Deployment "Bad_Name" is invalid:`, `metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain`,
		"spec.replicas: Invalid value: -1: must be greater than or equal to 0", "`selector` does not match template `labels`",
		"spec.template.spec.containers[0].image: Required value",
		"spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 99999: must be between 1 and 65535, inclusive",
	}
	v.refuses(t, "apply -f "+bad, "Error from server (BadRequest)", "strict decoding error: "+unknown)
	v.refuses(t, "apply --validate=warn -f "+bad, append(wants, "Warning: "+unknown)...)
	v.refuses(t, "apply --validate=false -f "+bad, wants...)
	v.refuses(t, "apply --server-side -f "+bad, `.spec.template.spec.containers[name="c"].imagee: field not declared in schema`)
	widget := v.file(t, "widget.yaml", "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\n")
	for _, verb := range []string{"apply", "apply --server-side", "create", "delete"} {
		v.refuses(t, verb+" -f "+widget, `no matches for kind "Widget" in version "example.com/v1"`, "ensure CRDs are installed first")
	}
	v.refuses(t, "get widgets", `the server doesn't have a resource type "widgets"`)
	v.refuses(t, `patch deployment shop -p {"spec":{"selector":{"matchLabels":{"app":"other"}}}}`, "field is immutable")
	v.refuses(t, "scale deployment shop --replicas=-1", "--replicas")
	for _, name := range []string{"Bad_Name", "bad"} {
		v.refuses(t, "get deployment "+name, "NotFound")
	}
}

func (v *verbs) remove(t *testing.T) {
	v.says(t, "delete deployment shop --cascade=foreground --timeout=120s", "deleted")
	if left := v.says(t, "get replicasets,pods -l app=shop -o name"); strings.TrimSpace(left) != "" {
		t.Errorf("left after a foreground deletion: %s", left)
	}
	v.says(t, "delete --ignore-not-found -f "+v.manifest+" --grace-period=1 --timeout=120s", "configmap \"settings\" deleted", "pod \"box\" deleted")
	v.says(t, "wait --for=delete pod/box pod/talker --timeout=120s")
	v.says(t, "delete service counter", "deleted")
}
