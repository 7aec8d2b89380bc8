package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

const (
	throttledFile = "sys/devices/platform/soc/soc:firmware/get_throttled"
	tempFile      = "sys/class/thermal/thermal_zone0/temp"
	lifeFile      = "sys/block/mmcblk0/device/life_time"
)

// sensors are the files of a board that measures all there is.
func sensors() map[string]string {
	return map[string]string{throttledFile: "0\n", tempFile: "48312\n", lifeFile: "0x02 0x01\n"}
}

// TestBoardConditions checks what each state of the board is as a condition, and the labels that name the board.
func TestBoardConditions(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change map[string]string
		kind   corev1.NodeConditionType
		status corev1.ConditionStatus
		reason string
	}{
		{"fine", nil, kube.UnderVoltageCondition, corev1.ConditionFalse, "VoltageOK"},
		{"low", map[string]string{throttledFile: "10001\n"}, kube.UnderVoltageCondition, corev1.ConditionTrue, "LowVoltage"},
		{"low before", map[string]string{throttledFile: "10000\n"}, kube.UnderVoltageCondition, corev1.ConditionFalse, "LowVoltageBefore"},
		{"capped", map[string]string{throttledFile: "2\n"}, kube.ThrottledCondition, corev1.ConditionTrue, "ProcessorSlowed"},
		{"throttled by the kernel", map[string]string{"sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n", "sys/class/thermal/cooling_device0/cur_state": "1\n"},
			kube.ThrottledCondition, corev1.ConditionTrue, "ProcessorSlowed"},
		{"full speed", nil, kube.ThrottledCondition, corev1.ConditionFalse, "FullSpeed"},
		{"hot", map[string]string{tempFile: "80000\n"}, kube.TemperatureCondition, corev1.ConditionTrue, "Hot"},
		{"warm", map[string]string{tempFile: "79999\n"}, kube.TemperatureCondition, corev1.ConditionFalse, "Cool"},
		{"worn", map[string]string{lifeFile: "0x0b 0x01\n"}, kube.WearCondition, corev1.ConditionTrue, "Worn"},
		{"not worn", nil, kube.WearCondition, corev1.ConditionFalse, "NotWorn"},
	} {
		files := sensors()
		for k, v := range tc.change {
			files[k] = v
		}
		root := machineDir(t, files)
		n, err := New(Config{Name: "pi", Root: root, DataDir: root})
		if err != nil {
			t.Fatal(err)
		}
		if c := cond(n.Status(), tc.kind); c.Status != tc.status || c.Reason != tc.reason || c.Message == "" {
			t.Errorf("%s: %+v, want %s, %s", tc.name, c, tc.status, tc.reason)
		}
		if n.labels[kube.BoardLabel] != "raspberry-pi-3-model-b-plus-rev-1.3" || n.labels[kube.SerialLabel] != "00000000deadbeef" {
			t.Errorf("labels %v", n.labels)
		}
	}
	root := machineDir(t, nil) // a machine that measures nothing
	n, err := New(Config{Name: "pi", Root: root, DataDir: root})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []corev1.NodeConditionType{kube.UnderVoltageCondition, kube.ThrottledCondition, kube.TemperatureCondition, kube.WearCondition} {
		if c := cond(n.Status(), kind); c.Type != "" {
			t.Errorf("a condition of what is not measured: %+v", c)
		}
	}
}

// TestBoardIsQuiet has temperature and voltage of a board come and go for a day: the hub gets a report when something begins and when
// it has been over for a while, and none for a number that moves.
func TestBoardIsQuiet(t *testing.T) {
	root := machineDir(t, sensors())
	put := func(file, text string) {
		t.Helper()
		next := filepath.Join(root, "next") // as the kernel does, all at once: Run reads at the same moment
		if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(root, file)); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{Name: "pi", Root: root, DataDir: root, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7")}})
		if err != nil {
			t.Fatal(err)
		}
		var got []wire.Object
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx, func(o wire.Object) error { got = append(got, o); return nil }) }()
		reports := func(what string, want int) {
			t.Helper()
			synctest.Wait()
			if len(got) != want {
				t.Errorf("%s: %d reports, want %d", what, len(got), want)
			}
			got = nil
		}
		hot := func(want corev1.ConditionStatus) {
			t.Helper()
			var r wire.NodeReport
			var st corev1.NodeStatus
			if err := json.Unmarshal(got[len(got)-1].Data, &r); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(r.Status, &st); err != nil {
				t.Fatal(err)
			}
			if c := cond(st, kube.TemperatureCondition); c.Status != want {
				t.Errorf("%+v, want %s", c, want)
			}
		}
		reports("start", 1)
		for i := range 24 * 60 { // up and down below the threshold
			put(tempFile, fmt.Sprintf("%d\n", 50_000+i*37%29_000))
			time.Sleep(time.Minute)
		}
		reports("a day without anything", 0)
		for i := range 60 { // around the threshold, and the voltage with each load
			put(tempFile, fmt.Sprintf("%d\n", 76_000+i*977%8_000))
			put(throttledFile, []string{"50000\n", "50001\n"}[i%2])
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		hot(corev1.ConditionTrue)
		if len(got) > 4 {
			t.Errorf("an hour at the threshold: %d reports", len(got))
		}
		got = nil
		put(tempFile, "60000\n")
		put(throttledFile, "50000\n")
		time.Sleep(boardCalm - time.Minute)
		reports("soon after", 0)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		hot(corev1.ConditionFalse)
		if len(got) > 2 {
			t.Errorf("when it is over: %d reports", len(got))
		}
		got = nil
		time.Sleep(time.Hour)
		reports("an hour of calm", 0)
		for _, file := range []string{tempFile, throttledFile, lifeFile} {
			put(file, "")
		}
		time.Sleep(time.Hour)
		reports("sensors that do not answer", 0)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
