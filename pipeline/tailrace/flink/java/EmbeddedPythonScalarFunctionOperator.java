package org.apache.flink.table.runtime.operators.python.scalar;

import org.apache.flink.configuration.Configuration;
import org.apache.flink.fnexecution.v1.FlinkFnApi;
import org.apache.flink.python.PythonOptions;
import org.apache.flink.python.util.ProtoUtils;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryRowData;
import org.apache.flink.table.data.utils.JoinedRowData;
import org.apache.flink.table.functions.python.PythonFunctionInfo;
import org.apache.flink.table.runtime.generated.GeneratedProjection;
import org.apache.flink.table.runtime.generated.Projection;
import org.apache.flink.table.runtime.operators.python.AbstractEmbeddedStatelessFunctionOperator;
import org.apache.flink.table.types.logical.RowType;

/**
 * Calls Python functions in the interpreter inside the JVM; stands before Flink's class of this name on the class path.
 *
 * Flink 2.2.1's own forgets the row kind: behind it a delete is an insert, and no table with updates stays right.
 * The Python side (`scalar_operation` of pyflink.fn_execution.embedded) is Flink's.
 */
public class EmbeddedPythonScalarFunctionOperator extends AbstractEmbeddedStatelessFunctionOperator {
    private static final long serialVersionUID = 1L;

    private final PythonFunctionInfo[] functions;
    private final GeneratedProjection forwarded;
    private transient Projection forward;
    private transient boolean single;

    public EmbeddedPythonScalarFunctionOperator(
            Configuration configuration,
            PythonFunctionInfo[] functions,
            RowType inputType,
            RowType argumentType,
            RowType resultType,
            int[] argumentOffsets,
            GeneratedProjection forwarded) {
        super(configuration, inputType, argumentType, resultType, argumentOffsets);
        this.functions = functions;
        this.forwarded = forwarded;
    }

    public void open() throws Exception {
        single = udfOutputType.getFieldCount() == 1;
        if (forwarded != null) {
            forward = (Projection) forwarded.newInstance(Thread.currentThread().getContextClassLoader());
        }
        super.open();
    }

    public void openPythonInterpreter() {
        interpreter.exec("from pyflink.fn_execution.embedded.operation_utils import create_scalar_operation_from_proto");
        interpreter.set("input_coder_proto", coder(udfInputType));
        interpreter.set("output_coder_proto", coder(udfOutputType));
        boolean metrics = ((Boolean) config.get(PythonOptions.PYTHON_METRIC_ENABLED)).booleanValue();
        boolean profile = ((Boolean) config.get(PythonOptions.PYTHON_PROFILE_ENABLED)).booleanValue();
        interpreter.set(
                "proto",
                ProtoUtils.createUserDefinedFunctionsProto(getRuntimeContext(), functions, metrics, profile).toByteArray());
        String oneArgument = udfInputOffsets.length == 1 ? "True" : "False";
        interpreter.exec(
                "scalar_operation = create_scalar_operation_from_proto(proto, input_coder_proto, output_coder_proto, "
                        + oneArgument + ", " + (single ? "True" : "False") + ")");
        interpreter.invokeMethod("scalar_operation", "open", new Object[0]);
    }

    public void endInput() {
        if (interpreter != null) {
            interpreter.invokeMethod("scalar_operation", "close", new Object[0]);
        }
    }

    public void processElement(StreamRecord element) {
        RowData row = (RowData) element.getValue();
        Object result = interpreter.invokeMethod("scalar_operation", "process_element", new Object[] {arguments(row)});
        Object[] results = single ? new Object[] {result} : (Object[]) result;
        for (int i = 0; i < results.length; i++) {
            reuseResultRowData.setField(i, userDefinedFunctionOutputConverters[i].toInternal(results[i]));
        }
        if (forward == null) {
            reuseResultRowData.setRowKind(row.getRowKind());
            rowDataWrapper.collect((RowData) reuseResultRowData);
            return;
        }
        BinaryRowData kept = ((BinaryRowData) forward.apply(row)).copy();
        rowDataWrapper.collect((RowData) new JoinedRowData(row.getRowKind(), kept, reuseResultRowData));
    }

    /** What the Python side expects: nothing, the one argument, or all of them. */
    private Object arguments(RowData row) {
        for (int i = 0; i < userDefinedFunctionInputArgs.length; i++) {
            userDefinedFunctionInputArgs[i] = userDefinedFunctionInputConverters[i].toExternal(row, udfInputOffsets[i]);
        }
        if (userDefinedFunctionInputArgs.length == 0) {
            return null;
        }
        return userDefinedFunctionInputArgs.length == 1
                ? userDefinedFunctionInputArgs[0]
                : (Object) userDefinedFunctionInputArgs;
    }

    private static byte[] coder(RowType type) {
        return ProtoUtils.createFlattenRowTypeCoderInfoDescriptorProto(
                        type, FlinkFnApi.CoderInfoDescriptor.Mode.MULTIPLE, false)
                .toByteArray();
    }
}
