/* A plugin of GStreamer whose `vah264dec` stands for a hardware decoder. What it decodes, it decodes by `avdec_h264`.
 *
 * AV_DRIVER=start: it never starts. AV_DRIVER=end: after sixty pictures it puts nothing out any more, and never ends.
 * AV_DRIVER=alone: it does not start while another one runs. */

#include <gst/gst.h>
#include <unistd.h>

#define PACKAGE "av-tests"
#define PICTURES 60

typedef struct {
  GstBin parent;
  gint pictures;
} Hardware;

typedef struct {
  GstBinClass parent;
} HardwareClass;

G_DEFINE_TYPE(Hardware, hardware, GST_TYPE_BIN)

static gboolean driver_is(const char *moment) {
  return g_strcmp0(g_getenv("AV_DRIVER"), moment) == 0;
}

static gint running;

static GstStateChangeReturn change_state(GstElement *element, GstStateChange change) {
  if (change == GST_STATE_CHANGE_READY_TO_PAUSED && g_atomic_int_add(&running, 1) > 0 && driver_is("alone")) {
    g_atomic_int_add(&running, -1);
    return GST_STATE_CHANGE_FAILURE;
  }
  if ((change == GST_STATE_CHANGE_READY_TO_PAUSED && driver_is("start")) ||
      (change == GST_STATE_CHANGE_PAUSED_TO_READY && driver_is("end")))
    for (;;)
      pause();
  if (change == GST_STATE_CHANGE_PAUSED_TO_READY)
    g_atomic_int_add(&running, -1);
  return GST_ELEMENT_CLASS(hardware_parent_class)->change_state(element, change);
}

static GstPadProbeReturn put_out(GstPad *pad, GstPadProbeInfo *info, gpointer self) {
  return driver_is("end") && ((Hardware *)self)->pictures++ >= PICTURES ? GST_PAD_PROBE_DROP : GST_PAD_PROBE_OK;
}

static void add(Hardware *self, GstElement *decoder, const char *name) {
  GstPad *pad = gst_element_get_static_pad(decoder, name);
  if (g_str_equal(name, "src"))
    gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, put_out, self, NULL);
  gst_element_add_pad(GST_ELEMENT(self), gst_ghost_pad_new(name, pad));
  gst_object_unref(pad);
}

static void hardware_init(Hardware *self) {
  GstElement *decoder = gst_element_factory_make("avdec_h264", NULL);
  gst_bin_add(GST_BIN(self), decoder);
  add(self, decoder, "sink");
  add(self, decoder, "src");
}

static void hardware_class_init(HardwareClass *class) {
  GST_ELEMENT_CLASS(class)->change_state = change_state;
  gst_element_class_set_static_metadata(GST_ELEMENT_CLASS(class), "a decoder that stands for hardware", "Codec/Decoder/Video",
                                        "for tests", PACKAGE);
}

static gboolean init(GstPlugin *plugin) {
  return gst_element_register(plugin, "vah264dec", GST_RANK_NONE, hardware_get_type());
}

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, hardware, "a decoder that stands for hardware", init, "1", "MIT/X11", PACKAGE,
                  "https://example.com/")
