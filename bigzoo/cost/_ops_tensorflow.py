"""What TensorFlow's operations ask of hardware: name -> (kind, keeps, FLOPs per element).

The last is arithmetic per output element, or per input element for reductions. A transcendental
function counts as one, as in XLA's analysis.
"""

from __future__ import annotations

Rule = tuple[str, str, float]


def _rules(kind: str, keeps: str, flops: float, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), (kind, keeps, flops))


FREE = frozenset(
    [
        "Const",
        "Placeholder",
        "NoOp",
        "Shape",
        "ShapeN",
        "Size",
        "Rank",
        "ReadVariableOp",
        "VarHandleOp",
        "TensorListReserve",
        "TensorListElementShape",
        "TensorListLength",
        "EmptyTensorList",
        "BroadcastGradientArgs",
        "BroadcastArgs",
        "InvertPermutation",
        "PlaceholderWithDefault",
        "Assert",
        "StatelessRandomGetKeyCounter",
        "StatelessRandomGetAlg",
        "StatelessRandomGetKeyCounterAlg",
        "VariableShape",
        "TensorListPushBack",
        "IsVariableInitialized",
        "TensorListGetItemGrad",
    ]
)

RULES: dict[str, Rule] = {
    **_rules(
        "view",
        "none",
        0,
        """Identity IdentityN Reshape ExpandDims Squeeze StopGradient PreventGradient Snapshot
        EnsureShape CheckNumerics Bitcast LoopCond""",
    ),
    **_rules(
        "move",
        "none",
        0,
        """Transpose ConcatV2 Concat Slice StridedSlice Pad PadV2 MirrorPad Tile Pack Unpack Split
        SplitV Fill BroadcastTo OneHot Range ReverseV2 Roll GatherV2 GatherNd ResourceGather
        ResourceGatherNd ScatterNd TensorScatterUpdate TensorScatterAdd Where ZerosLike OnesLike
        AssignVariableOp TensorListFromTensor TensorListStack TensorListGetItem TensorListSetItem
        SpaceToBatchND BatchToSpaceND SpaceToDepth DepthToSpace MatrixDiagV3 MatrixBandPart
        MatrixSetDiagV3 LinSpace ReverseSequence DynamicStitch DynamicPartition ExtractImagePatches
        Bucketize Diag DiagPart MatrixDiagPartV3 Copy DeepCopy TensorStridedSliceUpdate""",
    ),
    **_rules("elementwise", "none", 0, "Cast"),
    **_rules(
        "elementwise",
        "none",
        1,
        """AddV2 Add Sub Neg BiasAdd AddN Floor Ceil Round Rint Sign Equal NotEqual Less LessEqual
        Greater GreaterEqual LogicalAnd LogicalOr LogicalNot IsNan IsInf IsFinite FloorDiv FloorMod
        Mod TruncateDiv TruncateMod BitwiseAnd BitwiseOr BitwiseXor LeftShift RightShift Invert
        AssignAddVariableOp AssignSubVariableOp ClipByValue Conj Real Imag Complex
        ResourceScatterAdd NextAfter Angle""",
    ),
    **_rules("elementwise", "operands", 1, "Mul RealDiv Div DivNoNan MulNoNan Xdivy Xlogy Xlog1py"),
    **_rules(
        "elementwise",
        "output",
        1,
        "Exp Expm1 Sigmoid Tanh Relu Relu6 Sqrt Rsqrt Reciprocal Inv Elu Selu Erfinv",
    ),
    **_rules("elementwise", "first", 1, "SelectV2 Select"),
    **_rules("elementwise", "output", 5, "Softmax LogSoftmax"),
    **_rules(
        "elementwise",
        "inputs",
        1,
        """Square SquaredDifference Maximum Minimum Abs Log Log1p Pow Erf Erfc Sin Cos Tan Asin Acos
        Atan Atan2 Sinh Cosh Asinh Acosh Atanh Lgamma Digamma Softplus Softsign LeakyRelu ComplexAbs
        Igamma Igammac Betainc Zeta Polygamma BesselI0e BesselI1e Ndtri""",
    ),
    **_rules("elementwise", "inputs", 7, "FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 LRN"),
    **_rules("reduction", "none", 1, "Sum Mean Cumsum All Any ArgMax ArgMin"),
    **_rules(
        "reduction",
        "inputs",
        1,
        """Max Min Prod L2Loss EuclideanNorm Cumprod CumulativeLogsumexp UnsortedSegmentSum
        SegmentSumV2 SegmentMaxV2 UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd
        SparseSegmentSum Bincount DenseBincount TopKV2 InTopKV2 UniqueV2 Unique""",
    ),
    **_rules(
        "reduction",
        "inputs",
        5,
        "SparseSoftmaxCrossEntropyWithLogits SoftmaxCrossEntropyWithLogits",
    ),
    **_rules("pool", "inputs", 1, "MaxPool MaxPool3D MaxPoolV2 MaxPoolWithArgmax"),
    **_rules("pool", "none", 1, "AvgPool AvgPool3D"),
    **_rules("pool", "none", 8, "ResizeBilinear ResizeBicubic ResizeArea ScaleAndTranslate"),
    **_rules("move", "none", 0, "ResizeNearestNeighbor"),
    **_rules("pool", "inputs", 8, "ImageProjectiveTransformV3 ImageProjectiveTransformV2"),
    **_rules(
        "random",
        "none",
        1,
        """StatelessRandomUniformV2 StatelessRandomNormalV2 StatelessRandomUniformIntV2
        StatelessTruncatedNormalV2 StatelessRandomUniformFullIntV2 StatelessRandomUniform
        StatelessRandomNormal StatelessRandomUniformInt StatelessTruncatedNormal
        StatelessRandomUniformFullInt RandomUniform RandomStandardNormal RandomUniformInt
        TruncatedNormal StatelessMultinomial StatelessRandomBinomial StatelessRandomGammaV3
        StatelessShuffle RandomShuffle""",
    ),
}
